import '@shared/styles/tokens.css'
import { createApp } from 'vue'
import { createTranslator, initialLanguage } from '@shared/i18n'
import enCommon from '@shared/i18n/en/common'
import enShop from '@shared/i18n/en/shop'
import zhCommon from '@shared/i18n/zh-Hant-TW/common'
import zhShop from '@shared/i18n/zh-Hant-TW/shop'
import ShopApp from './ShopApp.vue'

const i18n = createTranslator(
  { en: { ...enCommon, ...enShop }, 'zh-Hant-TW': { ...zhCommon, ...zhShop } },
  initialLanguage(),
)
createApp(ShopApp).use(i18n).mount('#app')
