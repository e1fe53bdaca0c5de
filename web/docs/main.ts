import '@shared/styles/tokens.css'
import { createApp } from 'vue'
import { createTranslator, initialLanguage } from '@shared/i18n'
import enCommon from '@shared/i18n/en/common'
import enDocs from '@shared/i18n/en/docs'
import zhCommon from '@shared/i18n/zh-Hant-TW/common'
import zhDocs from '@shared/i18n/zh-Hant-TW/docs'
import DocsApp from './DocsApp.vue'

const i18n = createTranslator(
  { en: { ...enCommon, ...enDocs }, 'zh-Hant-TW': { ...zhCommon, ...zhDocs } },
  initialLanguage(),
)
createApp(DocsApp).use(i18n).mount('#app')
