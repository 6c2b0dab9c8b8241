// The developer's page in a real Chromium: prints one JSON line of what a person would have seen.
//
// Usage: node page.mjs URL CHROMIUM

import { chromium } from 'playwright-core';

const [url, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const context = await browser.newContext({ ignoreHTTPSErrors: true });
const page = await context.newPage();
page.setDefaultTimeout(15_000);
const complaints = [];
const requested = [];
page.on('pageerror', (error) => complaints.push(String(error)));
page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
page.on('request', (request) => requested.push(request.url()));

const text = (selector) => page.locator(selector).innerText();
const until = (selector, words) => page.locator(selector).filter({ hasText: words }).first().waitFor();

await page.goto(url);
await until('#status', 'connected');
const status = await text('#status');
await page.locator('#channel').fill('news');
await page.locator('#subscribe').click();
await until('#channels', 'news: subscribed');
await page.locator('#message').fill('{"text":"from the page"}');
await page.locator('#publish').click();
await until('#messages', 'from the page');

// Now the test publishes from outside, and later ends the node.
console.log(JSON.stringify({ step: 'subscribed', status }));
await until('#messages', 'from a backend');
const messages = await text('#messages');
const wire = await text('#wire');
console.log(JSON.stringify({ step: 'heard', messages, wire }));
await until('#status', /closed|connecting/);
console.log(JSON.stringify({ step: 'lost', status: await text('#status'), complaints, requested }));
await browser.close();
