"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  const by = (id) => document.getElementById(id);
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];

  // A script that several commands have is on the page once. A reader sees it with each of them.
  for (const link of all(".same")) {
    const script = document.querySelector("pre" + link.hash)?.cloneNode(true);
    if (!script) continue;
    script.removeAttribute("id");
    link.replaceWith(script);
  }

  // Beside the results in a checkout is the source of the questions. Elsewhere, as in a CI's artifact, a link would lead nowhere.
  if (/\/\.lab\/results\/[^/]+\/[^/]*$/.test(location.pathname)) {
    for (const name of all(".source")) {
      const link = document.createElement("a");
      link.href = "../../../" + name.textContent;
      link.append(...name.childNodes);
      name.append(link);
    }
  }

  // The scheme: the reader's system decides, until the button is pressed. A browser may refuse to store anything.
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch { return null; }
  };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { by("theme").textContent = dark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  label();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  by("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    stored(root.dataset.theme);
    label();
  });

  // Folding. Printing unfolds everything.
  const unfold = by("unfold");
  unfold.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    unfold.setAttribute("aria-pressed", String(open));
    for (const d of all(".experiment")) d.open = open;
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const d of closed) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });
  if (matchMedia("(max-width: 60rem)").matches) by("syllabus").open = false;

  // Search: a question is shown if it has all the words, in whatever case.
  const query = by("query"), hits = by("hits");
  let texts; // question → its text; made when the first word is typed
  const textOf = (article) => { // without the words that each question has: those of the buttons, and of the command that asks it again
    const copy = article.cloneNode(true);
    for (const e of all(".copy, .again", copy)) e.remove();
    return copy.textContent.toLowerCase() + " " + article.id.toLowerCase();
  };
  const search = () => {
    texts ||= new Map(all("article").map((a) => [a, textOf(a)]));
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = new Set();
    for (const [article, text] of texts) {
      article.hidden = !words.every((w) => text.includes(w));
      if (!article.hidden) found.add(article.id);
    }
    for (const item of all("nav li")) item.hidden = !found.has(item.dataset.question);
    for (const section of all(".of-chapter")) section.hidden = !section.querySelector("article:not([hidden])");
    hits.textContent = words.length ? found.size + " of " + texts.size + " questions" : "";
  };
  query.addEventListener("input", search);
  addEventListener("keydown", (e) => {
    const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(document.activeElement?.tagName);
    if (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) {
      e.preventDefault();
      query.focus();
    } else if (e.key === "Escape" && document.activeElement === query) {
      query.value = "";
      search();
    }
  });

  // An anchor shows its question, whatever is searched for, and unfolds its experiment.
  const show = () => {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const article = id && by(id)?.closest("article");
    if (!article) return;
    if (article.hidden) {
      query.value = "";
      search();
    }
    const experiment = article.querySelector(".experiment");
    if (experiment) experiment.open = true;
    for (const link of all("nav li a")) {
      const here = link.parentElement.dataset.question === article.id;
      if (here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      if (here && getComputedStyle(link.closest("nav")).position === "sticky") link.scrollIntoView({ block: "nearest" });
    }
    article.scrollIntoView();
    article.focus({ preventScroll: true });
  };
  addEventListener("hashchange", show);
  show();

  // Copying. The buttons are made here, as there are thousands. Without a clipboard, as on a page that is not secure, the command is selected.
  const says = (button, verb) => { // a label hides the text from a reader who cannot see it, so both say the same
    button.textContent = verb;
    button.ariaLabel = verb + " the command";
  };
  for (const command of all(".command")) {
    const button = document.createElement("button");
    button.className = "copy";
    says(button, "Copy");
    command.append(button);
  }
  addEventListener("click", async (e) => {
    const button = e.target.closest(".copy");
    if (!button) return;
    const of = button.parentElement.querySelector("pre, :scope > code");
    try {
      await navigator.clipboard.writeText(of.textContent);
      says(button, "Copied");
    } catch {
      const details = of.closest("details");
      if (details && button.parentElement.contains(details)) details.open = true;
      getSelection().selectAllChildren(of);
      says(button, "Selected");
    }
    by("copied").textContent = button.ariaLabel;
    setTimeout(() => {
      says(button, "Copy");
      by("copied").textContent = "";
    }, 2000);
  });
})();
