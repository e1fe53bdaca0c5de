import type en from '../en/widget'

const messages: typeof en = {
  title: '線上客服',
  greeting: '您好！需要什麼協助嗎？',
  greetingHint: '請在這裡留言。您可以隨時關閉視窗，回覆會替您保留。',
  team: '客服團隊',
  teamReplies: '通常幾分鐘內就會回覆',
  agentHere: '由 {name} 為您服務',
  agentLabel: '客服人員',
  log: '訊息',
  composer: '您的訊息',
  composerHint: '輸入訊息…',
  send: '傳送',
  close: '關閉對話',
  earlier: '載入先前的訊息',
  loadingEarlier: '正在載入先前的訊息…',
  loading: '正在開啟對話…',
  newMessages: '新訊息',
  jumpToLatest: '前往最新訊息',
  errorTitle: '無法開啟對話',
  errorNetwork: '無法連線到伺服器，系統會自動重試。',
  unknownInboxTitle: '此對話尚未設定完成',
  unknownInbox: '網頁指定的收件匣不存在。請通知網站管理者檢查 script 標籤中的 data-inbox。',
  archivedTitle: '此對話已關閉',
  archived: '客服團隊已不在這裡回覆，請以其他方式聯絡網站。',
  blockedTitle: '無法傳送訊息',
  blocked: '客服團隊不接受來自此處的訊息。',
  poweredBy: '由 {name} 提供對話服務',
}

export default messages
