import { createRouter, createWebHistory, type Router } from 'vue-router'
import { useSession } from './stores/session'
import DeskView from './views/DeskView.vue'
import LoginView from './views/LoginView.vue'
import MissingView from './views/MissingView.vue'

export function createDashboardRouter(): Router {
  const router = createRouter({
    history: createWebHistory(),
    routes: [
      { path: '/login', name: 'login', component: LoginView },
      { path: '/dashboard', name: 'desk', component: DeskView },
      { path: '/dashboard/conversations/:id(\\d+)', name: 'conversation', component: DeskView },
      { path: '/:rest(.*)*', name: 'missing', component: MissingView },
    ],
  })
  router.beforeEach(async (to) => {
    const session = useSession()
    if (to.name === 'login' && session.boot === 'unknown' && !session.mayBeSignedIn()) session.boot = 'signed-out'
    if (session.boot === 'unknown' || session.boot === 'unreachable') await session.load()
    // The page then shows that the server does not answer, at the address that was asked for.
    if (session.boot === 'unreachable') return true
    if (to.name === 'login') return session.signedIn ? { name: 'desk' } : true
    if (to.name === 'missing' || session.signedIn) return true
    return { name: 'login', query: to.name === 'desk' ? {} : { next: to.fullPath } }
  })
  return router
}
