/**
 * One conversation kept complete: the latest page first, earlier pages on demand, live events merged in, and
 * whatever is missing fetched with `after_seq` until nothing is.
 */
import type { Message, MessagePage, Stream } from './api-types'
import { contiguousSeq, emptyTimeline, hasHole, highestSeq, lowestSeq, merge, type Timeline } from './timeline'

export interface PageQuery {
  after_seq?: number
  before_seq?: number
  known_seq?: number
  limit: number
}

export interface ThreadOptions {
  streams: readonly Stream[]
  fetchPage: (stream: Stream, query: PageQuery) => Promise<MessagePage>
  /** client_ids that this tab is sending. */
  pendingClientIds: () => ReadonlySet<string>
  /** These pending messages are stored: take them out of the outbox. */
  onConfirmed: (clientIds: string[]) => void
  /** `arrived`: messages that came in after the first page was shown, not by scrolling back. */
  onChange: (thread: Thread, arrived: Message[]) => void
}

const PAGE = 50
const CATCH_UP_PAGE = 200

export class Thread {
  readonly #options: ThreadOptions
  timeline: Timeline = emptyTimeline
  /** True once the latest page of every stream is here. */
  loaded = false
  readonly #earlier: Record<Stream, boolean> = { public: false, staff: false }
  readonly #serverSeq: Record<Stream, number> = { public: 0, staff: 0 }
  #catching: Promise<void> | null = null
  /** Counts the calls of `catchUp`, so that a run knows whether there was one while it ran. */
  #calls = 0
  #loadingEarlier: Promise<void> | null = null

  constructor(options: ThreadOptions) {
    this.#options = options
  }

  /** Whether there are messages before the first one shown. */
  get hasEarlier(): boolean {
    return this.#options.streams.some((stream) => this.#earlier[stream])
  }

  /** The time before which at least one stream is not loaded. */
  get horizon(): string {
    return this.#options.streams
      .filter((stream) => this.#earlier[stream])
      .map((stream) => this.timeline.streams[stream][0]?.created_at ?? '')
      .reduce((latest, time) => (time > latest ? time : latest), '')
  }

  /** A live event, or the answer to an own POST. A hole that it shows is filled at once. */
  receive(message: Message): void {
    if (!this.#options.streams.includes(message.stream)) return
    this.#merge([message], true)
    if (this.loaded && hasHole(this.timeline, message.stream, this.#serverSeq[message.stream])) {
      this.catchUp().catch(() => {
        // The next poll, reconnect or message tries again; the connection state tells the reader.
      })
    }
  }

  /**
   * Fetches what is missing after the last seq without a hole, in every stream; the first call loads the latest page.
   * Calls while one is under way share it, and it then looks once more.
   */
  catchUp(serverSeq: Partial<Record<Stream, number>> = {}): Promise<void> {
    for (const stream of this.#options.streams) {
      this.#serverSeq[stream] = Math.max(this.#serverSeq[stream], serverSeq[stream] ?? 0)
    }
    this.#calls += 1
    this.#catching ??= this.#run().finally(() => {
      this.#catching = null
    })
    return this.#catching
  }

  /** Loads the page before the first message shown. */
  loadEarlier(): Promise<void> {
    this.#loadingEarlier ??= this.#earlierPages().finally(() => {
      this.#loadingEarlier = null
    })
    return this.#loadingEarlier
  }

  async #run(): Promise<void> {
    const calls = this.#calls
    if (this.loaded) await Promise.all(this.#options.streams.map((stream) => this.#fetchAfter(stream)))
    else await this.#first()
    if (calls !== this.#calls) await this.#run()
  }

  async #first(): Promise<void> {
    const pages = await Promise.all(
      this.#options.streams.map((stream) => this.#options.fetchPage(stream, { limit: PAGE })),
    )
    pages.forEach((page, index) => {
      const stream = this.#options.streams[index]
      if (!stream) return
      this.#earlier[stream] = page.has_more && page.items.length > 0
    })
    this.loaded = true
    this.#merge(
      pages.flatMap((page) => page.items),
      false,
    )
    // An event may have overtaken the page.
    if (this.#options.streams.some((stream) => hasHole(this.timeline, stream))) this.#calls += 1
  }

  async #fetchAfter(stream: Stream): Promise<void> {
    for (;;) {
      const from = contiguousSeq(this.timeline, stream)
      const page = await this.#options.fetchPage(stream, {
        after_seq: from,
        known_seq: Math.max(highestSeq(this.timeline, stream), this.#serverSeq[stream]),
        limit: CATCH_UP_PAGE,
      })
      this.#merge(page.items, true)
      if (!page.has_more || contiguousSeq(this.timeline, stream) <= from) return
    }
  }

  async #earlierPages(): Promise<void> {
    const horizon = this.horizon
    // Only the stream that ends latest moves the horizon; the others follow when their turn comes.
    const behind = this.#options.streams.filter(
      (stream) => this.#earlier[stream] && (this.timeline.streams[stream][0]?.created_at ?? '') >= horizon,
    )
    await Promise.all(
      behind.map(async (stream) => {
        const before = lowestSeq(this.timeline, stream)
        if (before === null) return
        const page = await this.#options.fetchPage(stream, { before_seq: before, limit: PAGE })
        this.#earlier[stream] = page.has_more && page.items.length > 0
        this.#merge(page.items, false)
      }),
    )
    this.#options.onChange(this, [])
  }

  #merge(messages: readonly Message[], live: boolean): void {
    const { timeline, added, confirmed } = merge(this.timeline, messages, this.#options.pendingClientIds())
    const changed = timeline !== this.timeline
    this.timeline = timeline
    if (confirmed.length > 0) this.#options.onConfirmed(confirmed)
    if (changed || !live) this.#options.onChange(this, live && this.loaded ? added : [])
  }
}
