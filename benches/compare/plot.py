"""Draws the results as an SVG plot: a group of bars for each row, and a bar for each program."""

import statistics
from html import escape

BAR, GAP, LABEL, WIDTH = 16, 14, 170, 460
COLORS = {"portcullis": "#2b6cb0", "portcullis-pgo": "#1a4971", "nginx": "#718096"}
OTHER = "#cbd5e0"


def bars(results, titles):
    """Returns an SVG document. The length of a bar is the ratio to nginx, or to the smallest figure if nginx takes no part."""
    out, y = [], 30
    for name, row in results.items():
        out.append(f'<text x="8" y="{y}" class="title">{escape(titles[name])}</text>')
        y += 10
        medians = {peer: statistics.median(one["us"]) for peer, one in row.items()}
        base = medians.get("nginx", min(medians.values()))
        ratios = {peer: used / base for peer, used in medians.items()}
        scale = WIDTH / max(3.0, min(6.0, max(ratios.values())))
        for peer, ratio in sorted(ratios.items(), key=lambda item: item[1]):
            length = min(ratio * scale, WIDTH)
            text = f"{medians[peer]:.1f} µs ({ratio:.2f})"
            out.append(f'<text x="{LABEL - 8}" y="{y + 12}" class="name">{escape(peer)}</text>')
            out.append(f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLORS.get(peer, OTHER)}"/>')
            out.append(f'<text x="{LABEL + length + 6:.1f}" y="{y + 12}" class="figure">{text}</text>')
            y += BAR
        y += GAP + 12
    width = LABEL + WIDTH + 140
    style = "text{font:12px sans-serif;fill:#1a202c}.title{font-weight:bold}.name{text-anchor:end}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">'
        f'<title>CPU time per request</title><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(out)
        + "</svg>\n"
    )
