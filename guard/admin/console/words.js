// All words of the page, in English and Traditional Chinese. A missing word shows its key, so that it is noticed.
const WORDS = {
  en: {
    skip: "Skip to content", pause: "Pause updates", resume: "Go on", theme: "Theme", keys: "Keys", language: "中文",
    health: "Health", release: "Release", actions: "Actions", objectives: "Objectives", incidents: "Incidents",
    drift: "Drift", cost: "Cost and cache", exchanges: "Recent exchanges", more: "Show more", token: "Admin token",
    "a-pause": "Pause", "a-resume": "Resume", "a-promote": "Promote one stage", "a-abort": "Abort",
    "a-rollback": "Roll back", "a-drill": "Drill", cancel: "Cancel", go: "Do it", close: "Close",
    "about-pause": "The weight stays, nothing advances.", "about-resume": "The stage goes on, its hold begins anew.",
    "about-promote": "One stage up; from the last one the canary becomes stable.",
    "about-abort": "The canary loses its traffic, without an incident.",
    "about-rollback": "Takes the release out of traffic, moves the pointer and tells the receivers.",
    "about-drill": "Rehearses a rollback with real files, registry and receivers; no user's traffic is touched.",
    type: "Type {word} to confirm", "no-token": "Enter the admin token first.",
    "close-why": "Why it is over", "close-it": "Close the incident", "no-reason": "Say in a few words why it is over.", doing: "Working…",
    lost: "No connection to the guard; what you see is {age} old. It is tried again.", "updates-paused": "Updates are paused.",
    "no-answer": "The guard does not answer.", "perhaps-done": "The guard does not answer; look before you repeat it: it may have been done.",
    unreadable: "cannot be read now; see the journal under Health",
    "theme-auto": "auto", "theme-light": "light", "theme-dark": "dark",
    ok: "ok", breach: "breach", unknown: "unknown", degraded: "degraded", off: "off", ready: "ready",
    "not-ready": "not ready", firing: "firing", up: "up", serving: "Serving",
    objective: "Objective", arm: "Release", state: "State", value: "Value", limit: "Limit", budget: "Budget left",
    course: "Last hour", events: "Events", window: "Window", action: "Action", why: "Why",
    stable: "stable", canary: "canary", previous: "previous", none: "none", mode: "Mode", phase: "Phase",
    stage: "Stage", held: "held", reason: "Reason", recommendation: "Recommended", conditions: "Conditions",
    incident: "Incident", epoch: "Epoch", corrected: "Hallucination, corrected", labels: "labels", shedding: "Shedding", "shedding-on": "the lowest priority is refused",
    time: "Time", kind: "Kind", title: "What", ended: "Ended", open: "open", component: "Component", score: "Score",
    exchange: "Exchange", route: "Route", outcome: "Outcome", seconds: "Seconds", tokens: "Tokens", usd: "USD",
    cache: "Cache", findings: "Findings", nothing: "nothing yet", each: "USD per request", hits: "Hit ratio",
    saved: "Saved by the cache today (UTC)", evidence: "Evidence", pass: "pass", fail: "fail", inconclusive: "inconclusive",
    timeline: "Timeline", differences: "What changed", question: "Question", answer: "Answer", words: "Words",
    "words-why": "The redacted words need the admin token.", "no-words": "No words are kept of it.",
    rolling_out: "rolling out", rolled_back: "rolled back", rolling_back: "rolling back", promoted: "promoted", paused: "paused",
    idle: "idle", learning: "learning", steady: "steady", signal: "signal", alarm: "alarm", "keys-about": "1-7 sections, p pause updates, t theme, l language, Esc closes.",
    skipped: "skipped", unavailable: "unavailable", verdict: "Verdict", beside: "beside stable", recovery: "Did it help?",
  },
  "zh-TW": {
    skip: "跳到內容", pause: "暫停更新", resume: "繼續", theme: "主題", keys: "快捷鍵", language: "English",
    health: "健康", release: "版本", actions: "動作", objectives: "目標", incidents: "事故",
    drift: "漂移", cost: "成本與快取", exchanges: "最近的問答", more: "顯示更多", token: "管理權杖",
    "a-pause": "暫停", "a-resume": "恢復", "a-promote": "晉升一階", "a-abort": "中止",
    "a-rollback": "回滾", "a-drill": "演練", cancel: "取消", go: "執行", close: "關閉",
    "about-pause": "流量比例不變\uff0c不再前進\u3002", "about-resume": "繼續本階段\uff0c重新計算停留時間\u3002",
    "about-promote": "前進一階\uff1b最後一階後金絲雀成為穩定版\u3002",
    "about-abort": "金絲雀失去流量\uff0c不產生事故\u3002",
    "about-rollback": "把版本移出流量\u3001移動指標並通知接收者\u3002",
    "about-drill": "以真實的檔案\u3001登錄庫與接收者演練回滾\uff0c不影響使用者流量\u3002",
    type: "輸入 {word} 以確認", "no-token": "請先輸入管理權杖\u3002",
    "close-why": "結案原因", "close-it": "結束事故", "no-reason": "請簡述為何已結束\u3002", doing: "處理中…",
    lost: "與守衛失去連線\uff0c畫面是 {age} 前的資料\uff0c正在重試\u3002", "updates-paused": "已暫停更新\u3002",
    "no-answer": "守衛沒有回應\u3002", "perhaps-done": "守衛沒有回應\uff0c動作可能已執行\uff0c重做前請先查看\u3002",
    unreadable: "目前無法讀取\uff0c請看健康中的 journal",
    "theme-auto": "自動", "theme-light": "淺色", "theme-dark": "深色",
    ok: "正常", breach: "違反", unknown: "未知", degraded: "降級", off: "關閉", ready: "就緒",
    "not-ready": "未就緒", firing: "觸發中", up: "已運行", serving: "服務",
    objective: "目標", arm: "版本", state: "狀態", value: "數值", limit: "門檻", budget: "剩餘預算",
    course: "最近一小時", events: "筆數", window: "視窗", action: "動作", why: "原因",
    stable: "穩定版", canary: "金絲雀", previous: "前一版", none: "無", mode: "模式", phase: "階段",
    stage: "階", held: "已停留", reason: "原因", recommendation: "建議", conditions: "狀況",
    incident: "事故", epoch: "紀元", corrected: "校正後幻覺率", labels: "筆標註", shedding: "卸載", "shedding-on": "拒絕最低優先的請求",
    time: "時間", kind: "類型", title: "內容", ended: "結束", open: "進行中", component: "元件", score: "分數",
    exchange: "問答", route: "路由", outcome: "結果", seconds: "秒", tokens: "Token", usd: "美元",
    cache: "快取", findings: "檢查結果", nothing: "尚無資料", each: "每次請求美元", hits: "命中率",
    saved: "快取今日節省 (UTC)", evidence: "證據", pass: "通過", fail: "失敗", inconclusive: "尚無定論",
    timeline: "時間軸", differences: "差異", question: "問題", answer: "回答", words: "內容",
    "words-why": "查看去識別化內容需要管理權杖\u3002", "no-words": "沒有保留內容\u3002",
    rolling_out: "發布中", rolled_back: "已回滾", rolling_back: "回滾中", promoted: "已晉升", paused: "已暫停",
    idle: "閒置", learning: "學習中", steady: "平穩", signal: "有變化", alarm: "警報", "keys-about": "1-7 各區\uff0cp 暫停更新\uff0ct 主題\uff0cl 語言\uff0cEsc 關閉\u3002",
    skipped: "略過", unavailable: "無法檢查", verdict: "判定", beside: "與穩定版相比", recovery: "有幫助嗎",
  },
};

let language = "en";

export function chosen() { return language; }

export function choose(name) {
  language = Object.hasOwn(WORDS, name) ? name : "en"; // it may come from the address
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
}

export function t(key, values = {}) {
  let text = WORDS[language][key] ?? WORDS.en[key] ?? key;
  for (const [name, value] of Object.entries(values)) text = text.replace(`{${name}}`, value);
  return text;
}

export const KEYS = Object.fromEntries(Object.entries(WORDS).map(([name, words]) => [name, Object.keys(words)]));
