import '@shared/styles/tokens.css'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import { chooseLanguage, createTranslator } from '@shared/i18n'
import enCommon from '@shared/i18n/en/common'
import enWidget from '@shared/i18n/en/widget'
import zhCommon from '@shared/i18n/zh-Hant-TW/common'
import zhWidget from '@shared/i18n/zh-Hant-TW/widget'
import WidgetApp from './WidgetApp.vue'

const asked = new URLSearchParams(location.search).get('lang')
const i18n = createTranslator(
  { en: { ...enCommon, widget: enWidget }, 'zh-Hant-TW': { ...zhCommon, widget: zhWidget } },
  chooseLanguage(asked ? [asked, ...navigator.languages] : navigator.languages),
)
createApp(WidgetApp).use(createPinia()).use(i18n).mount('#app')
