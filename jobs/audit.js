"use strict";
// Rows to read, one at a time. Everything of a row becomes a text node; verdicts stay in this browser, an entry a row and reviewer.
(function () {
  var data = JSON.parse(document.getElementById("data").textContent);
  var rows = data.rows, reasons = data.reasons;
  var words = {
    en: {
      audit: "audit", name: "Your name", row: "Row", download: "Download verdicts", accept: "Accept", reject: "Reject", note: "Note",
      open: "Next open", undo: "Undo", ask: "Questions", keys: "Keys", fields: "Other columns", empty: "(empty)", other: "中文",
      nameFirst: "Write your name first: verdicts are kept by name.", more: " characters more, in kept/", turns: " turns more, in kept/",
      lost: "This browser does not keep data for this page: download before you close it.", accepted: "accepted", rejected: "rejected",
      judged: "judged", finished: "Every row has a verdict. Download them and send the file back.",
      help: [["A", "accept, next row"], ["R", "reject"], ["1–" + reasons.length, "why (rejects)"], ["N", "write a note, Esc ends"],
        ["J → Enter", "next row"], ["K ←", "row before"], ["G", "next row without a verdict"], ["U", "take the verdict back"],
        ["?", "show the questions"], ["D", "download"]],
      places: {}, roles: {}
    },
    zh: {
      audit: "审核", name: "姓名", row: "第", download: "下载结论", accept: "接受", reject: "拒绝", note: "备注",
      open: "下一未审", undo: "撤销", ask: "审核要点", keys: "按键", fields: "其他列", empty: "（空）", other: "English",
      nameFirst: "请先填写姓名：结论按姓名保存。", more: " 个字符未显示，见 kept/", turns: " 轮未显示，见 kept/",
      lost: "此浏览器不保存本页数据：关闭前请先下载。", accepted: "接受", rejected: "拒绝",
      judged: "已审", finished: "全部审核完毕，请下载结论并交回文件。",
      help: [["A", "接受并到下一行"], ["R", "拒绝"], ["1–" + reasons.length, "原因（即拒绝）"], ["N", "写备注，Esc 结束"],
        ["J → Enter", "下一行"], ["K ←", "上一行"], ["G", "下一条未审"], ["U", "撤销结论"], ["?", "显示审核要点"], ["D", "下载"]],
      places: { prompt: "提问", response: "回答", chosen: "优选回答", rejected: "劣选回答", completion: "回答", reference: "参考答案", text: "正文" },
      roles: { system: "系统", user: "用户", assistant: "助手", tool: "工具", tools: "可用工具" }
    }
  };
  var language = /^zh/i.test(navigator.language || "") ? "zh" : "en";
  var at = 0, reviewer = "", verdicts = {}, kept = true, downloaded = true;
  var base = "gristmill.audit." + data.draw + ".";

  function find(id) { return document.getElementById(id); }
  function say(key) { return words[language][key]; }
  function add(parent, tag, kind, text) {
    var node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }
  function read(key) {
    try { return localStorage.getItem(base + key); } catch (error) { kept = false; return null; }
  }
  function store(key, value) {
    try {
      if (value === null) localStorage.removeItem(base + key); else localStorage.setItem(base + key, value);
    } catch (error) { kept = false; }
  }
  function key(item) { return JSON.stringify([reviewer, item]); }
  function load() {
    verdicts = {};
    if (!reviewer) return;
    rows.forEach(function (row) {
      try {
        var found = JSON.parse(read(key(row.item)));
        if (found) verdicts[row.item] = found;
      } catch (error) { /* not ours: as if it were not there */ }
    });
  }
  function mine() { return verdicts[rows[at].item] || { verdict: null, reasons: [], note: "" }; }
  function keep(entry) {
    var item = rows[at].item;
    entry.at = new Date().toISOString();
    if (entry.verdict || entry.note) verdicts[item] = entry; else delete verdicts[item];
    store(key(item), verdicts[item] ? JSON.stringify(entry) : null);
    downloaded = false;
  }
  function named() {
    if (reviewer) return true;
    warn(say("nameFirst"));
    find("who").classList.add("wanted");
    find("reviewer").focus();
    return false;
  }
  function warn(text) { find("warn").textContent = text || ""; find("warn").hidden = !text; }
  function judge(verdict, reason) {
    if (!named()) return;
    var old = mine(), chosen = old.reasons.slice();
    if (reason) {
      var place = chosen.indexOf(reason);
      if (place < 0) chosen.push(reason); else chosen.splice(place, 1);
    }
    keep({ verdict: verdict, reasons: verdict === "reject" ? chosen : [], note: old.note });
    find("live").textContent = (at + 1) + ": " + say(verdict === "accept" ? "accepted" : "rejected");
    if (verdict === "accept" && at + 1 < rows.length) go(at + 1); else show();
  }
  function go(to) {
    at = Math.min(Math.max(to, 0), rows.length - 1);
    store("at", String(at));
    draw();
    show();
    var row = find("row"), top = row.getBoundingClientRect().top;
    row.focus({ preventScroll: true });
    if (top < 0) window.scrollBy(0, top - 12);
  }
  function open() {
    for (var step = 1; step <= rows.length; step++) {
      var row = (at + step) % rows.length, found = verdicts[rows[row].item];
      if (!found || !found.verdict) return go(row);
    }
    show();
  }
  function translated(names, word) {
    return word.replace(/^[a-z]+/, function (first) { return Object.prototype.hasOwnProperty.call(names, first) ? names[first] : first; });
  }
  function draw() {
    var row = rows[at], home = find("row"), place = null, section = null, sides = null;
    home.textContent = "";
    row.turns.forEach(function (turn) {
      if (turn.place !== place) {
        place = turn.place;
        if (place === "chosen") sides = add(home, "div", "sides");
        section = add(sides || home, "section", "place" + (/^(response|chosen|rejected|completion|reference)/.test(place) ? " answer" : ""));
        add(section, "h2", "", translated(say("places"), place));
      }
      var one = add(section, "div", "turn"), raw = /(call|tools)$/.test(turn.role) || turn.role.indexOf("tool") === 0;
      add(one, "div", "role", translated(say("roles"), turn.role));
      var text = add(one, "div", raw ? "text raw" : "text", turn.text);
      text.dir = "auto";
      if (!turn.text && !turn.cut) { text.textContent = say("empty"); text.className = "empty"; }
      if (turn.cut) add(text, "span", "cut", " … " + turn.cut.toLocaleString() + say("more"));
    });
    if (row.left) add(home, "p", "cut", "… " + row.left.toLocaleString() + say("turns"));
    var more = add(home, "details"), list;
    add(more, "summary", "", say("fields"));
    list = add(more, "dl");
    [["id", row.id], ["item", row.item]].concat(Object.entries(row.fields)).forEach(function (pair) {
      add(list, "dt", "", pair[0]);
      add(list, "dd", "", pair[1]);
    });
  }
  function show() {
    var now = mine(), panel = find("panel"), counts = { accept: 0, reject: 0 };
    rows.forEach(function (row, n) {
      var found = verdicts[row.item], state = (found && found.verdict) || "";
      if (state) counts[state] += 1;
      var mark = find("strip").children[n];
      if (mark) mark.className = state + (n === at ? " here" : "");
    });
    var judged = counts.accept + counts.reject;
    find("counts").textContent = judged + " " + say("judged") + " · " + counts.accept + " " + say("accepted") + " · " + counts.reject + " " + say("rejected");
    find("accept").setAttribute("aria-pressed", String(now.verdict === "accept"));
    find("reject").setAttribute("aria-pressed", String(now.verdict === "reject"));
    panel.classList.toggle("rejected", now.verdict === "reject");
    reasons.forEach(function (reason, n) {
      find("reasons").children[n].setAttribute("aria-pressed", String(now.reasons.indexOf(reason[0]) >= 0));
    });
    if (document.activeElement !== find("note")) find("note").value = now.note;
    if (document.activeElement !== find("jump")) find("jump").value = at + 1;
    find("done").hidden = judged < rows.length;
    find("done").textContent = say("finished");
    if (!kept) warn(say("lost"));
  }
  function speak() {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    document.querySelectorAll("[data-say]").forEach(function (node) { node.textContent = say(node.dataset.say); });
    find("language").textContent = say("other");
    find("language").lang = language === "zh" ? "en" : "zh-CN";
    find("note").placeholder = say("note");
    find("reasons").textContent = "";
    reasons.forEach(function (reason, n) {
      var button = add(find("reasons"), "button");
      button.type = "button";
      add(button, "kbd", "", String(n + 1));
      add(button, "span", "", reason[language === "zh" ? 2 : 1]);
      add(button, "small", "", reason[language === "zh" ? 4 : 3]);
      button.addEventListener("click", function () { judge("reject", reason[0]); });
    });
    find("keys").textContent = "";
    say("help").forEach(function (pair) { add(find("keys"), "dt", "", pair[0]); add(find("keys"), "dd", "", pair[1]); });
    draw();
    show();
  }
  function ask() {
    var asking = find("panel").classList.toggle("asking");
    find("ask").setAttribute("aria-pressed", String(asking));
  }
  function note() {
    if (!named()) return;
    var now = mine();
    keep({ verdict: now.verdict, reasons: now.reasons, note: find("note").value });
    show();
  }
  function undo() {
    if (!named()) return;
    keep({ verdict: null, reasons: [], note: mine().note });
    show();
  }
  function download() {
    if (!named()) return;
    var lines = rows.filter(function (row) { return verdicts[row.item]; }).map(function (row) {
      var one = verdicts[row.item];
      return JSON.stringify({ draw: data.draw, item: row.item, id: row.id, reviewer: reviewer, verdict: one.verdict, reason: one.reasons,
        note: one.note, at: one.at }) + "\n";
    });
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
    link.download = "audit-" + reviewer.replace(/[^\p{L}\p{N}_-]+/gu, "_") + "-" + data.draw.slice(0, 8) + ".jsonl";
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 60000);
    downloaded = true;
  }
  function rename() {
    reviewer = find("reviewer").value.trim();
    find("who").classList.toggle("wanted", !reviewer);
    store("reviewer", reviewer);
    warn(reviewer ? "" : say("nameFirst"));
    load();
    show();
  }

  var acts = { a: function () { judge("accept"); }, r: function () { judge("reject"); }, u: undo, d: download, g: open, "?": ask,
    j: function () { go(at + 1); }, ArrowRight: function () { go(at + 1); }, Enter: function () { go(at + 1); },
    k: function () { go(at - 1); }, ArrowLeft: function () { go(at - 1); },
    n: function () { if (named()) find("note").focus(); } };
  reasons.forEach(function (reason, n) { acts[String(n + 1)] = function () { judge("reject", reason[0]); }; });
  document.addEventListener("keydown", function (event) {
    var target = event.target, writes = /^(INPUT|TEXTAREA)$/.test(target.tagName);
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (writes) {
      if (event.key === "Escape" || (event.key === "Enter" && target.tagName === "INPUT")) { target.blur(); find("row").focus({ preventScroll: true }); }
      return;
    }
    if (event.key === "Enter" && /^(BUTTON|SUMMARY)$/.test(target.tagName)) return;
    var name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!Object.prototype.hasOwnProperty.call(acts, name) || (event.repeat && !/^(Arrow|[jk]$)/.test(name))) return;
    event.preventDefault();
    acts[name]();
  });
  [["accept", acts.a], ["reject", acts.r], ["undo", undo], ["download", download], ["open", open], ["next", acts.j], ["back", acts.k],
    ["ask", ask]].forEach(function (pair) {
    find(pair[0]).addEventListener("click", function () { pair[1](); if (document.activeElement === find(pair[0])) find(pair[0]).blur(); });
  });
  find("language").addEventListener("click", function () { language = language === "zh" ? "en" : "zh"; store("language", language); speak(); });
  find("note").addEventListener("input", note);
  find("reviewer").addEventListener("input", rename);
  find("jump").addEventListener("change", function () { go((parseInt(find("jump").value, 10) || 1) - 1); });
  find("strip").addEventListener("click", function (event) {
    var n = Array.prototype.indexOf.call(find("strip").children, event.target);
    if (n >= 0) go(n);
  });
  window.addEventListener("storage", function () { load(); show(); });
  window.addEventListener("beforeunload", function (event) { if (!kept && !downloaded) event.preventDefault(); });

  find("title").textContent = data.name;
  find("draw").textContent = data.draw.slice(0, 8);
  find("all").textContent = rows.length;
  find("jump").max = rows.length;
  find("strip").style.setProperty("--n", String(rows.length));
  if (rows.length <= 600) rows.forEach(function () { add(find("strip"), "span"); });
  language = read("language") || language;
  if (!words[language]) language = "en";
  reviewer = read("reviewer") || "";
  find("reviewer").value = reviewer;
  at = Math.min(Math.max(parseInt(read("at"), 10) || 0, 0), rows.length - 1);
  load();
  speak();
})();
