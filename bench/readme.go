package main

import (
	"fmt"
	"strings"
)

// markdownReadme are the three figures that matter most, as far as they were measured.
func (r *report) markdownReadme() string {
	var out strings.Builder
	if row := r.row("standby"); row != nil {
		if ours, best := row.median(standbyName), row.best(); ours != nil && best != nil {
			fmt.Fprintf(&out, "- **A killed worker's place is served again after %s** with one standby; the best of the others, %s, takes %s.\n",
				inSeconds.format(ours.Spread.Median), best.Name, inSeconds.format(best.Spread.Median))
		}
	}
	if row := r.row("reload"); row != nil {
		failed, late := row.figure("prefork, rolling: failed"), row.figure("prefork, rolling, p99")
		if failed != nil && late != nil {
			fmt.Fprintf(&out, "- **Rolling reloads under load: %.0f requests%s failed**; the p99 is %.2f times that without reloads.\n",
				failed.Value, strings.TrimPrefix(failed.Name, "prefork, rolling: failed"), late.Value)
		}
	}
	if row := r.row("rate"); row != nil {
		if rate := row.figure("alloc, net/http, load beside, prefork, a socket each, GOMAXPROCS=1 / one process"); rate != nil {
			fmt.Fprintf(&out, "- **%.2f times the requests of one process** where memory is allocated heavily: two workers with GOMAXPROCS=1, each with its own socket", rate.Value)
			if p99 := row.figure("alloc, net/http, load beside, p99, prefork, a socket each, GOMAXPROCS=1 / one process"); p99 != nil {
				fmt.Fprintf(&out, "; the p99 is %.2f times", p99.Value)
			}
			out.WriteString(".\n")
		}
	}
	return out.String()
}

// standbyName is the contender of row standby that the goal is about, bareName ours without a standby.
const (
	standbyName = "prefork, one standby"
	bareName    = "prefork, no standby"
)

func (r *report) row(name string) *result {
	for _, row := range r.Rows {
		if row.Name == name {
			return row
		}
	}
	return nil
}

// median is a series that was measured.
func (r *result) median(title string) *series {
	for _, s := range r.Series {
		if s.title() == title && s.Spread.N > 0 {
			return s
		}
	}
	return nil
}

// best is the peer with the least median.
func (r *result) best() (best *series) {
	for _, s := range r.Series {
		if s.Group == "" && !strings.HasPrefix(s.Name, "prefork") && s.Spread.N > 0 && (best == nil || s.Spread.Median < best.Spread.Median) {
			best = s
		}
	}
	return best
}

// figure is the first whose name begins so.
func (r *result) figure(prefix string) *figure {
	for i := range r.Figures {
		if strings.HasPrefix(r.Figures[i].Name, prefix) {
			return &r.Figures[i]
		}
	}
	return nil
}
