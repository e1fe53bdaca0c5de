import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

const root = fileURLToPath(new URL('.', import.meta.url))

// The loader runs on other people's pages: one classic script at a fixed address, no chunks, no global but Deskline.
export default defineConfig({
  root,
  publicDir: false,
  build: {
    outDir: 'dist',
    emptyOutDir: false,
    target: 'es2020',
    reportCompressedSize: false,
    lib: {
      entry: `${root}loader/main.ts`,
      formats: ['iife'],
      name: 'DesklineLoader',
      fileName: () => 'widget.js',
    },
  },
})
