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
  event: {
    claimed: '{name} 接手了這段對話',
    released: '{name} 放回了這段對話',
    assigned: '{name} 將對話指派給 {to}',
    assignedBySystem: '已自動指派給 {to}',
    transferred: '{name} 將對話轉交給 {to}',
    transferredToTeam: '{name} 將對話轉交給團隊 {to}',
    snoozed: '{name} 將對話延後到 {until}',
    woke: '延後的對話已重新開啟',
    resolved: '{name} 將對話標示為已解決',
    ended: '{name} 結束了對話',
    reopened: '{name} 重新開啟了對話',
    reopenedByVisitor: '{name} 再次留言，對話已重新開啟',
    priorityChanged: '{name} 將優先順序設為{priority}',
    labelsAdded: '{name} 加上了標籤 {added}',
    labelsRemoved: '{name} 移除了標籤 {removed}',
    labelsChanged: '{name} 加上了標籤 {added}，並移除了 {removed}',
    participantAdded: '{name} 將 {user} 加入對話',
    participantRemoved: '{name} 將 {user} 移出對話',
    erased: '此處有一筆紀錄，詳細內容已清除',
    rated: '{name} 為這段對話評了 {score} 分（滿分 5 分）',
  },
  priority: {
    low: '低',
    normal: '一般',
    high: '高',
    urgent: '緊急',
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
