"""How a report looks: its style sheet, light and dark."""

from __future__ import annotations

from metapl.reporting.plots import COLOURS

DARK = ("#f0823a", "#409ee0", "#20bd8e", "#e0a0c4", "#f0b434", "#90d0f5", "#9aa4b0")
"""`COLOURS` on a dark ground: lighter, as far from each other."""

SHEET = """
:root{color-scheme:light dark;--ground:#f5f6f8;--card:#fff;--ink:#1a1f26;--soft:#586270;--grid:#e3e7ec;
--hit:0 114 178;--miss:213 94 0;LIGHT}
@media (prefers-color-scheme:dark){:root{--ground:#0f1217;--card:#181c22;--ink:#e8ebef;--soft:#9aa5b3;--grid:#2c323b;
--hit:64 158 224;--miss:240 130 58;DARK}}
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0 auto;padding:48px 32px 96px;max-width:1144px;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{margin:4px 0 12px;font-size:36px;line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{margin:56px 0 12px;font-size:24px;line-height:1.2;letter-spacing:-.01em}
h3{margin:0 0 8px;font-size:15px;line-height:1.35;font-weight:600}
p{margin:0 0 16px;max-width:76ch}
code{font:.92em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;overflow-wrap:anywhere}
a{color:var(--c1);text-underline-offset:3px}
:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
.run{margin:0;color:var(--soft);font-size:14px}
.lede{font-size:18px}
.note,figcaption,.small{color:var(--soft);font-size:14px}
.warning{padding:12px 16px;border-left:4px solid var(--c0);border-radius:4px;background:rgb(var(--miss)/.1)}
nav{display:flex;flex-wrap:wrap;gap:6px 20px;margin:24px 0 0;padding:12px 0;border:solid var(--grid);border-width:1px 0;
font-size:14px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
.facts{display:flex;flex-wrap:wrap;gap:14px 36px;margin:24px 0 0}
.facts dt,.tile dt{color:var(--soft);font-size:13px}
.facts dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.words{display:grid;grid-template-columns:auto minmax(0,1fr);gap:6px 16px;margin:0;font-size:14px}
.words dt{white-space:nowrap}
.words dd{margin:0;max-width:76ch;color:var(--soft)}
.card{min-width:0;margin:0;padding:20px;border:1px solid var(--grid);border-radius:12px;background:var(--card)}
.card+.card,.card+.grid,.grid+.card,.grid+.grid,.tiles+.grid{margin-top:20px}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px}
.card+.note,details+.note{margin-top:16px}
.card>:last-child{margin-bottom:0}
.grid>.card,.tiles>.card{margin-top:0}
.grid>.card:only-child{grid-column:1/-1}
.grid>figure.card:only-child{grid-column:auto}
.tiles{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:20px;margin:0}
.tile dd{margin:0}
.tile .big{font-size:36px;line-height:1.2;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile .big span{font-size:20px;font-weight:500;color:var(--soft)}
figure>div svg{display:block;width:100%;height:auto;overflow:visible}
figure>div svg *{stroke-linejoin:round}
figcaption{margin-top:8px}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin:0 0 10px;padding:0;list-style:none;font-size:13.5px}
.legend li{display:flex;align-items:center;gap:6px;min-width:0;overflow-wrap:anywhere}
.key,.dot{flex:none;width:28px;height:10px}
.key{fill:none}
.dot{width:10px}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:14.5px;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top;font-weight:400}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
tbody tr:last-child>*{border-bottom:0}
thead th{color:var(--soft);font-size:13px;white-space:nowrap;vertical-align:bottom}
.figure{text-align:right;white-space:nowrap}
tbody th{overflow-wrap:break-word;max-width:28ch}
tbody th code{white-space:nowrap}
figcaption table{color:var(--ink)}
.chosen>*{font-weight:650}
details{margin-top:16px}
summary{cursor:pointer;color:var(--c1);font-size:14px}
details[open]>summary{margin-bottom:8px}
.matrix{width:auto;margin:0 auto;border-collapse:separate;border-spacing:2px;font-size:13.5px}
.matrix th,.matrix td{padding:0 6px;border:0;vertical-align:middle}
.matrix td{min-width:38px;height:34px;border-radius:4px;text-align:center}
.matrix thead th{vertical-align:bottom;text-align:center;color:var(--ink)}
.matrix thead .axis{padding-bottom:6px;color:var(--soft)}
.matrix thead .corner{text-align:right}
.matrix .long{display:inline-block;max-height:140px;overflow:hidden;text-overflow:ellipsis;writing-mode:vertical-rl;
transform:rotate(180deg)}
.matrix tbody th{max-width:180px;overflow:hidden;text-align:right;text-overflow:ellipsis;white-space:nowrap}
.hit{background:rgb(var(--hit)/var(--share))}
.miss{background:rgb(var(--miss)/var(--share))}
.none{color:var(--soft);opacity:.55}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(112px,1fr));gap:20px 16px;margin:0;padding:0;
list-style:none;font-size:13.5px;line-height:1.4}
.plain{min-width:24ch;margin:0;padding:0;list-style:none}
.pictures li{min-width:0;overflow-wrap:anywhere}
.pictures img{display:block;width:100%;height:auto;margin-bottom:6px;border:1px solid var(--grid);border-radius:6px;
background:#fff}
.crisp{image-rendering:pixelated}
.meter{display:inline-block;width:72px;height:8px;margin-left:10px;border-radius:4px;vertical-align:baseline;
background:linear-gradient(to right,var(--c1) var(--share),var(--grid) 0)}
@media (max-width:800px){.grid{grid-template-columns:minmax(0,1fr)}}
@media (max-width:640px){body{padding:24px 14px 64px}h1{font-size:28px}h2{margin-top:44px}.lede{font-size:17px}
.card{padding:16px 14px}.tiles{grid-template-columns:minmax(0,1fr);gap:12px}th,td{padding-left:6px;padding-right:6px}
.pictures{grid-template-columns:repeat(auto-fill,minmax(96px,1fr))}.meter{display:none}
.matrix{font-size:12.5px}.matrix th,.matrix td{padding:0 2px}.matrix td{min-width:26px;height:28px}}
@media print{body{max-width:none;padding:0}.card{break-inside:avoid}nav{display:none}}
"""


def css() -> str:
    """The style sheet, with the colours of the figures."""
    light, dark = (
        "".join(f"--c{index}:{colour};" for index, colour in enumerate(colours)) for colours in (COLOURS, DARK)
    )
    return SHEET.replace("LIGHT", light).replace("DARK", dark).strip()
