import '@shared/styles/tokens.css'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import { createTranslator, initialLanguage } from '@shared/i18n'
import enCommon from '@shared/i18n/en/common'
import enDashboard from '@shared/i18n/en/dashboard'
import zhCommon from '@shared/i18n/zh-Hant-TW/common'
import zhDashboard from '@shared/i18n/zh-Hant-TW/dashboard'
import DashboardApp from './DashboardApp.vue'
import { createDashboardRouter } from './router'

const i18n = createTranslator(
  { en: { ...enCommon, ...enDashboard }, 'zh-Hant-TW': { ...zhCommon, ...zhDashboard } },
  initialLanguage(),
)
createApp(DashboardApp).use(createPinia()).use(i18n).use(createDashboardRouter()).mount('#app')
