import type en from '../en/common'

const messages: typeof en = {
  connection: {
    connecting: '連線中…',
    online: '即時連線',
    offline: '離線',
    offlineHelp: '目前沒有即時連線，系統會自動重試；您送出的內容會保留到成功送達為止。',
    retryNow: '立即重試',
  },
  message: {
    sending: '傳送中…',
    sent: '已送出',
    read: '已讀',
    failed: '未送出',
    retry: '再試一次',
    discard: '捨棄',
    deleted: '此訊息已刪除',
    tooLong: '超過 {max} 個字元，請縮短內容。',
    refused: '伺服器拒絕了這則訊息。',
    you: '您',
    note: '備註',
    received: '{name} 傳來新訊息：{body}',
  },
  day: {
    today: '今天',
    yesterday: '昨天',
    now: '剛剛',
  },
  action: {
    retry: '再試一次',
    close: '關閉',
  },
  language: {
    label: '語言',
    en: 'English',
    zh: '繁體中文',
  },
}

export default messages
