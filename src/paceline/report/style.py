"""The page's style sheet: its colours for light, dark and print, and how it fits a phone."""

from paceline.report import palette, trace

_CSS = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--sans);overflow-wrap:anywhere}
main{max-width:1120px;margin:0 auto;padding:40px 20px 72px}
h1{font-size:1rem;font-weight:600;color:var(--muted);margin:0}
h2{font-size:1.42rem;line-height:1.25;font-weight:650;letter-spacing:-.012em;margin:0 0 .4em}
h3{font-size:1.02rem;font-weight:650;margin:2.2em 0 .5em}
p{margin:.5em 0;max-width:74ch}
section{border-top:1px solid var(--line);margin-top:48px;padding-top:30px}
.answer{font-size:clamp(1.3rem,2.7vw,1.8rem);line-height:1.32;font-weight:600;letter-spacing:-.015em;
  max-width:42em;margin:.35em 0 .7em;white-space:pre-line}
.fresh{font-size:1.05rem;max-width:62ch;white-space:pre-line;margin:0 0 .8em}
.facts,.note,figcaption{color:var(--muted);font-size:.86rem}
.facts{margin:0}
.note{line-height:1.5}
.winner{border-left:3px solid var(--accent);padding:2px 0 2px 16px;margin:26px 0 0}
.winner p{margin:.2em 0}
code{font:.87em/1.6 var(--mono);background:var(--wash);border-radius:4px;padding:.12em .38em}
code.command{display:block;padding:.7em .95em;margin:.6em 0;white-space:pre;overflow-x:auto;max-width:74ch}
figure{margin:22px 0 0;min-width:0}
figcaption{line-height:1.45;margin-top:8px}
.pair,.trio{display:grid;gap:4px 44px;align-items:start}
.pair{grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
.trio{grid-template-columns:repeat(auto-fit,minmax(min(100%,290px),1fr));gap:4px 32px}
.pair>figure,.trio>figure{max-width:560px}.trio>figure{margin-top:8px}
.beside .note{margin-top:22px}
.warnings{list-style:none;padding:0;margin:.8em 0;font-size:.9rem}
.warnings li{border-left:3px solid var(--lit);padding-left:10px}
.chart{display:block;width:100%;height:auto;overflow:visible}
.chart text{paint-order:stroke;stroke:var(--paper);stroke-width:2.5px;stroke-linejoin:round}
.scroll.tall{max-height:38rem}
.scroll{overflow:auto;border-bottom:1px solid var(--line);margin:10px 0;
  background:linear-gradient(to right,var(--paper) 40%,transparent) 0 0/40px 100% no-repeat local,
  linear-gradient(to left,var(--paper) 40%,transparent) 100% 0/40px 100% no-repeat local,
  linear-gradient(to right,var(--shade),transparent) 0 0/14px 100% no-repeat scroll,
  linear-gradient(to left,var(--shade),transparent) 100% 0/14px 100% no-repeat scroll}
.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums;line-height:1.4;min-width:100%}
th,td{padding:6px 0 6px 16px;text-align:right;vertical-align:baseline;white-space:nowrap;
  border-top:1px solid var(--line)}
th:first-child,td:first-child{padding-left:0}
thead th{color:var(--muted);font-weight:500;border-top:0;position:sticky;top:0;background:var(--paper);
  white-space:normal;min-width:4.4em;overflow-wrap:normal;vertical-align:bottom}
.w{text-align:left}
.name{display:inline-flex;align-items:baseline;max-width:100%}
.name bdi{min-width:0}
.w .name,.w .text{display:inline-flex;width:max-content;max-width:24em;white-space:normal}
tbody th{font-weight:400}
.strong td,.strong th{font-weight:650}
.quiet td{color:var(--muted)}
.reason{display:block;white-space:pre-wrap;font:.84rem/1.5 var(--mono);color:var(--muted)}
.swatch{flex:none;width:22px;height:10px;margin-right:7px;overflow:visible}
.strips{display:grid;grid-template-columns:max-content 1fr max-content;gap:5px 12px;align-items:center;
  font-size:.86rem;font-variant-numeric:tabular-nums;margin-top:14px;max-width:860px}
.strip{display:block;width:100%;height:20px;background:var(--wash);fill:var(--lit);shape-rendering:crispEdges}
.ends{display:flex;justify-content:space-between;color:var(--muted);font-size:.8rem}
.trace{font:.9rem/1.85 var(--mono);white-space:pre-wrap;unicode-bidi:isolate;overflow:hidden;max-width:860px;
  padding:14px 16px;border:1px solid var(--line);border-radius:6px}
.lit{border-bottom:1px solid var(--lit);border-radius:2px 2px 0 0}
.key{white-space:nowrap}
.key .lit{font-family:var(--mono);padding:.1em .45em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 24px;font-size:.9rem;margin:.6em 0}
dt{color:var(--muted)}
dd{margin:0}
li{margin:.35em 0;max-width:74ch}
.prose{white-space:pre-line}
.failures{list-style:none;padding:0}
.failures li{margin:.9em 0}
ul{padding-left:1.2em;margin:.5em 0}
details{margin-top:1.6em}
summary{cursor:pointer;font-weight:600}
@media(max-width:600px){
  main{padding:24px 16px 48px}
  section{margin-top:36px;padding-top:24px}
  dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5em}
  .trace{padding:10px 12px}
  th,td{padding-left:12px}.w .name,.w .text{max-width:9em}
}
@media print{
  @page{margin:14mm}
  :root{--paper:#fff}
  body{font-size:10.5pt}
  main{max-width:none;padding:0}
  .scroll.tall{max-height:none}
  .scroll{overflow:visible;background:none}
  table{font-size:7pt}th,td{padding-left:6px}thead th{min-width:0;position:static}
  .w .name,.w .text{max-width:9.5em}
  code.command{white-space:pre-wrap}
  details::details-content{content-visibility:visible;height:auto}
  figure,tr,.strips,.winner{break-inside:avoid}
  h2,h3,summary{break-after:avoid}
  .pair{grid-template-columns:1fr 1fr}.trio{grid-template-columns:1fr 1fr 1fr}
  *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""

_FONTS = """--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,"SF Mono",SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace"""
_LIGHT = "--paper:#fdfdfb;--wash:#f1f2ee;--lit:#e69f00;--shade:#0002"
_DARK = "--paper:#14171a;--wash:#1f2429;--lit:#e69f00;--shade:#0009"


def css() -> str:
    """The whole style sheet: light by default and in print, dark where the reader's screen is."""
    light = f":root{{{_LIGHT};{palette.declarations(dark=False)}}}{_lights(0.2)}"
    dark = f":root{{{_DARK};{palette.declarations(dark=True)}}}{_lights(0.1)}"
    dark = f"@media screen and (prefers-color-scheme:dark){{{dark}}}"
    return f":root{{{_FONTS};color-scheme:light dark}}\n{light}\n{dark}{_CSS}"


def _lights(step: float) -> str:
    """Backgrounds of lit tokens: `step` more of the light per level."""
    return "".join(f".l{i}{{background:rgb(230 159 0/{step * i:.2g})}}" for i in range(1, trace.LEVELS + 1))
