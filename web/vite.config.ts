import { fileURLToPath } from 'node:url'
import tailwindcss from '@tailwindcss/vite'
import vue from '@vitejs/plugin-vue'
import { build, type Connect, type Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

const root = fileURLToPath(new URL('.', import.meta.url))
const backend = process.env['DESKLINE_DEV_BACKEND'] ?? 'http://127.0.0.1:8000'

/** The addresses that the web node (or Nginx) serves, mapped for `npm run dev` as they are in production. */
function servedAddresses(): Plugin {
  const page = (url: string): string | null => {
    const path = url.split('?')[0] ?? '/'
    if (path === '/') return '/shop/index.html'
    if (path === '/docs' || path === '/docs/') return '/docs/index.html'
    if (path === '/widget/') return '/widget/index.html'
    if (path === '/login' || /^\/dashboard(\/(?!.*\.)|$)/.test(path)) return '/dashboard/index.html'
    return null
  }
  const rewrite: Connect.NextHandleFunction = (request, response, next) => {
    if (request.url?.startsWith('/widget.js')) {
      // A module script has no document.currentScript, so the loader is built even in development.
      build({ configFile: `${root}vite.loader.config.ts`, logLevel: 'error', build: { write: false } })
        .then((result) => {
          const output = Array.isArray(result) ? result[0] : result
          const chunk = output && 'output' in output ? output.output[0] : undefined
          response.setHeader('Content-Type', 'text/javascript')
          response.end(chunk?.type === 'chunk' ? chunk.code : '')
        })
        .catch(next)
      return
    }
    const target = request.url ? page(request.url) : null
    if (target) request.url = target
    next()
  }
  return {
    name: 'deskline-served-addresses',
    configureServer: (server) => {
      server.middlewares.use(rewrite)
    },
  }
}

export default defineConfig({
  root,
  base: '/',
  appType: 'mpa',
  plugins: [vue(), tailwindcss(), servedAddresses()],
  resolve: { alias: { '@shared': `${root}shared` } },
  define: {
    __VUE_OPTIONS_API__: false,
    __VUE_PROD_DEVTOOLS__: false,
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: false,
    __VUE_I18N_FULL_INSTALL__: false,
    __VUE_I18N_LEGACY_API__: false,
    // Messages are interpreted, never compiled with `new Function`: the content policy has no 'unsafe-eval'.
    __INTLIFY_JIT_COMPILATION__: true,
    __INTLIFY_DROP_MESSAGE_COMPILER__: false,
    __INTLIFY_PROD_DEVTOOLS__: false,
  },
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    // Pictures stay files: the content policy need not allow data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        codeSplitting: { groups: [{ name: 'vue', test: /node_modules\/(@?vue|@intlify)\// }] },
      },
      input: ['shop', 'widget', 'dashboard', 'docs'].map((face) => `${root}${face}/index.html`),
    },
  },
  server: {
    port: 5173,
    proxy: Object.fromEntries(
      ['/api', '/broadcasting', '/openapi.json', '/healthz', '/readyz'].map((path) => [path, { target: backend }]),
    ),
  },
  test: {
    include: ['**/*.test.ts'],
    environment: 'node',
  },
})
