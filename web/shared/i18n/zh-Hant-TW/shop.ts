import type en from '../en/shop'

const messages: typeof en = {
  title: '潮間．茶與陶',
  description: '手拉坯茶器與雲霧間採收的茶。Deskline 的示範商店。',
  skip: '跳至主要內容',
  brand: '潮間',
  nav: { label: '頁面導覽', shop: '選物', story: '工坊', delivery: '配送' },
  hero: {
    kicker: '茶與陶，自上一個春潮開始',
    title: '為安靜的茶桌，做慢慢的東西',
    lead: '小批手拉坯的壺，與我們年年親訪的茶農所製的茶。沒有兩件完全相同。',
    browse: '瀏覽本季作品',
    ask: '有問題儘管問',
    picture: '淡月前的青瓷茶壺與茶杯',
  },
  products: {
    title: '春季作品',
    lead: '六件作品，三月製成。售完之後，我們會做別的。',
    add: '加入購物籃',
    ask: '詢問此商品',
    teapot: { name: '青瓷茶壺', text: '450 毫升，木灰釉，斷水俐落' },
    cups: { name: '對杯', text: '厚度如拇指的杯壁，留得住溫度' },
    oolong: { name: '高山烏龍', text: '75 公克，海拔 1,600 公尺採摘，輕焙火' },
    tray: { name: '檜木茶盤', text: '上油兩道，可放五只茶杯' },
    gaiwan: { name: '白瓷蓋碗', text: '110 毫升，薄如花瓣' },
    kettle: { name: '鐵壺', text: '900 毫升，砂模鑄造，可用五十年' },
  },
  story: {
    title: '一座窯、兩個人，與潮汐',
    text: '每個月起風時，我們燒一次窯。釉料都來自同一座果園的木灰，所以每一抹青綠都不會重複。不夠好的作品我們自己留著用，廚房早就放滿了。',
    facts: { pieces: '件作品／月', growers: '位茶農', years: '年拉坯經驗' },
  },
  delivery: {
    title: '像包雞蛋一樣包裝',
    one: { title: '二至四天', text: '台灣與日本境內。其他地區約一週。' },
    two: { title: '破了就換', text: '在對話中傳張照片，這就是全部的手續。' },
    three: { title: '三十天', text: '先相處看看，不合適再退。' },
  },
  basket: {
    open: '購物籃，{count} 件商品',
    title: '您的購物籃',
    empty: '目前沒有商品。',
    total: '合計',
    remove: '移除 {name}',
    added: '已將 {name} 放入購物籃。',
    demo: '這是示範商店，不會真的販售商品。',
    quantity: '× {count}',
  },
  footer: {
    demo: '示範商店。右下角的對話視窗就是 Deskline。',
    staff: '客服人員登入',
    docs: 'API 文件',
  },
}

export default messages
