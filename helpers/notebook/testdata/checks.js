// What the browser test asks of the page. Each function returns a list of what is wrong.
const list = (selector, of = document) => [...of.querySelectorAll(selector)];
const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const setQuery = (text) => {
  const query = document.getElementById("query");
  query.value = text;
  query.dispatchEvent(new Event("input"));
};
const unfoldAll = () => { for (const d of list("details")) d.open = true; };

async function byAnchor() {
  const wrong = [];
  for (const link of list("nav li a")) {
    location.hash = "";
    link.click();
    await frame();
    const article = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (!article) { wrong.push("no question has the anchor " + link.hash); continue; }
    const top = article.getBoundingClientRect().top;
    const end = document.documentElement.scrollHeight - innerHeight - scrollY < 2;
    if (top < -1 || top > 200 && !end) wrong.push(link.hash + " is at " + top + " of the window");
    const experiment = article.querySelector(".experiment");
    if (experiment && !experiment.open) wrong.push(link.hash + ": the experiment is folded");
  }
  if (list("nav li a").length !== list("article").length) wrong.push("the syllabus and the page have not as many questions");
  return wrong;
}

function bySearch() {
  const wrong = [];
  for (const article of list("article")) {
    const text = article.querySelector("h3").textContent.replace("#", "").replace("★", "");
    for (const words of [text, article.id]) {
      setQuery(words);
      if (article.hidden) wrong.push(JSON.stringify(words) + " does not find " + article.id);
      if (list("article:not([hidden])").length > 10) wrong.push(JSON.stringify(words) + " finds nearly everything");
    }
  }
  // Each question has the button and the command that asks it again, so their words must find none by themselves.
  setQuery("copy");
  for (const article of list("article:not([hidden])")) {
    const own = article.cloneNode(true);
    for (const e of list(".copy, .again", own)) e.remove();
    if (!own.textContent.toLowerCase().includes("copy")) wrong.push("a button finds " + article.id);
  }
  setQuery("q='^test");
  if (list("article:not([hidden])").length) wrong.push("the command that asks it again finds a question");
  setQuery("zzzz");
  if (list("article:not([hidden])").length) wrong.push("nonsense finds a question");
  setQuery("");
  if (list("article[hidden], nav li[hidden], .of-chapter[hidden]").length) wrong.push("without words something is hidden");
  return wrong;
}

async function searchIsLeftByAnAnchor() {
  setQuery("zzzz");
  location.hash = "";
  await frame();
  const article = list("article").at(-1);
  location.hash = article.id;
  await frame();
  return article.hidden ? ["an anchor leads to a question that the search hides"] : [];
}

function pictures(want) {
  const wrong = [], found = list("figure svg");
  if (found.length !== want) wrong.push(found.length + " pictures, and not " + want);
  for (const svg of found) {
    const box = svg.getBoundingClientRect();
    if (box.width < 50 || box.height < 30) wrong.push(svg.ariaLabel + " is empty");
    if (!svg.getAttribute("aria-label")) wrong.push("a picture has no text for a reader who cannot see it");
  }
  return wrong;
}

// Texts may touch, but not overlap.
function overlaps() {
  const wrong = [], slack = 1.5;
  for (const svg of list("figure svg")) {
    const texts = list("text", svg).map((t) => ({ t, b: t.getBBox() }));
    const { width, height } = svg.viewBox.baseVal;
    texts.forEach(({ t, b }, i) => {
      if (b.x < -slack || b.y < -slack || b.x + b.width > width + slack || b.y + b.height > height + slack) {
        wrong.push(JSON.stringify(t.textContent) + " is not inside of " + svg.ariaLabel);
      }
      for (const { t: u, b: c } of texts.slice(i + 1)) {
        if (b.x + b.width > c.x + slack && c.x + c.width > b.x + slack && b.y + b.height > c.y + slack && c.y + c.height > b.y + slack) {
          wrong.push(JSON.stringify(t.textContent) + " overlaps " + JSON.stringify(u.textContent) + " in " + svg.ariaLabel);
        }
      }
    });
  }
  return wrong;
}

async function fits() {
  unfoldAll();
  await frame();
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return list("body *").filter((e) => !e.closest(".scroll, pre, .unseen, .skip") && e.getBoundingClientRect().right > width + 1)
    .slice(0, 10).map((e) => "wider than " + width + ": " + e.outerHTML.slice(0, 120));
}

const light = (color) => {
  const [r, g, b] = color.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const rgb = (color) => color.match(/[\d.]+/g).map(Number);
const opaque = (color) => color !== "none" && (rgb(color)[3] ?? 1) > 0;
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (opaque(color)) return rgb(color);
  }
  return [255, 255, 255];
};

// The contrast of each text is at least 4.5, as WCAG 2.2 AA asks.
function contrast() {
  unfoldAll();
  const wrong = new Map();
  const look = (e, color, on) => {
    const [a, b] = [light(rgb(color)), light(on)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const key = e.tagName + "." + (e.getAttribute("class") || "") + " " + color + " on " + on;
    if (ratio < 4.5) wrong.set(key, key + ": contrast " + ratio.toFixed(2));
  };
  for (const e of list("body *")) {
    const ownText = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
    if (!ownText || e.closest("script, svg")) continue;
    look(e, getComputedStyle(e).color, ground(e));
  }
  for (const svg of list("figure svg")) {
    const rects = list("rect", svg).filter((r) => opaque(getComputedStyle(r).fill));
    for (const t of list("text", svg)) {
      const b = t.getBBox(), x = b.x + b.width / 2, y = b.y + b.height / 2;
      const below = rects.filter((r) => {
        const c = r.getBBox();
        return c.x <= x && x <= c.x + c.width && c.y <= y && y <= c.y + c.height;
      }).at(-1);
      look(t, getComputedStyle(t).fill, below ? rgb(getComputedStyle(below).fill) : ground(svg));
    }
  }
  return [...wrong.values()];
}

function hasScheme(scheme) {
  const dark = light(rgb(getComputedStyle(document.body).backgroundColor)) < 0.2;
  return dark === (scheme === "dark") ? [] : ["the ground is not " + scheme];
}

function switchesScheme() {
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  const after = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  const again = getComputedStyle(document.body).backgroundColor;
  return before !== after && before === again ? [] : [[before, after, again].join(", ")];
}

function structure() {
  const wrong = [];
  for (const one of ["h1", "header", "nav", "main", "[role=search]"]) {
    if (list(one).length !== 1) wrong.push(list(one).length + " elements " + one);
  }
  let level = 0;
  for (const h of list("h1, h2, h3, h4")) {
    const now = Number(h.tagName[1]);
    if (now > level + 1) wrong.push("after a heading of level " + level + ": " + h.outerHTML.slice(0, 100));
    level = now;
  }
  for (const e of list("button, a, summary, [role=region], nav, input")) {
    const name = e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.[0]?.textContent;
    if (!name) wrong.push("no name: " + e.outerHTML.slice(0, 100));
  }
  const ids = list("[id]").map((e) => e.id);
  for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) wrong.push("two elements have the id " + id);
  for (const e of list("[aria-labelledby]")) {
    if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push("no label " + e.getAttribute("aria-labelledby"));
  }
  return wrong;
}

function focused(name) {
  const now = document.activeElement;
  if (!now.classList.contains(name)) return ["the focus is on " + now.outerHTML.slice(0, 100)];
  return getComputedStyle(now).outlineStyle === "none" ? ["the focus cannot be seen"] : [];
}

function searched(text, found) {
  const wrong = [], query = document.getElementById("query");
  if (query.value !== text) wrong.push("searched for " + JSON.stringify(query.value) + " and not " + JSON.stringify(text));
  const shown = list("article:not([hidden])").length;
  if (shown !== found) wrong.push(shown + " questions are shown, and not " + found);
  return wrong;
}

// Each command that is folded has its script, also where the page has the script once for several commands.
function scripts(atLeast) {
  const wrong = [];
  for (const command of list(".command:has(details)")) {
    if (!command.querySelector("pre")?.textContent) wrong.push("no script: " + command.textContent);
  }
  if (list(".same").length) wrong.push("a link in place of a script");
  const seen = {};
  for (const pre of list(".command pre")) seen[pre.textContent] = (seen[pre.textContent] || 0) + 1;
  const shared = list("pre[id^=script-]");
  if (shared.length < atLeast) wrong.push(shared.length + " scripts are shared, and not " + atLeast);
  for (const pre of shared) {
    if (seen[pre.textContent] < 2) wrong.push("no other command has the script " + pre.id);
  }
  return wrong;
}

// In a checkout the name of a question's file leads to it, and elsewhere it is text.
function sources(lead) {
  const wrong = [], names = list(".source");
  if (!names.length) wrong.push("no question names its file");
  for (const name of names) {
    const link = name.querySelector("a");
    if (!/^[a-z0-9_]+_test\.go$/.test(name.textContent)) wrong.push("no file of a question: " + name.textContent);
    if (Boolean(link) !== lead) wrong.push(name.textContent + (link ? " leads to " + link.href : " leads nowhere"));
    const checkout = location.href.split("/.lab/results/")[0];
    if (lead && link && link.href !== checkout + "/" + name.textContent) wrong.push(name.textContent + " leads to " + link.href);
  }
  return wrong;
}

async function copies() {
  const button = document.querySelector(".copy");
  button.click();
  await new Promise((done) => setTimeout(done, 100));
  const wrong = [], status = document.getElementById("copied");
  if (!["Copied", "Selected"].includes(button.textContent)) wrong.push("after a click the button says " + button.textContent);
  for (const said of [button.ariaLabel, status.textContent]) {
    if (said !== button.textContent + " the command") wrong.push("after a click a screen reader says " + said);
  }
  if (!document.getElementById("hits").checkVisibility() || !status.checkVisibility()) wrong.push("a status is not rendered");
  return wrong;
}

function elements(scripts, styles) {
  const wrong = [];
  if (list("script").length !== scripts || list("style").length !== styles) wrong.push("scripts or styles that are not the page's own");
  for (const e of list("*")) {
    for (const a of e.attributes) {
      if (a.name.startsWith("on") || a.name === "style" || a.name === "src") wrong.push(e.outerHTML.slice(0, 100));
    }
  }
  return wrong;
}

// On paper nothing can be unfolded, and nothing can be pressed.
function prints() {
  const wrong = [];
  for (const e of list("nav, .tools, .copy")) {
    if (e.checkVisibility()) wrong.push("printed: " + e.outerHTML.slice(0, 100));
  }
  for (const e of list(".experiment dd, .command pre, .command > code, figure table")) {
    if (!e.checkVisibility()) wrong.push("not printed: " + e.outerHTML.slice(0, 100));
  }
  return wrong.slice(0, 10);
}
