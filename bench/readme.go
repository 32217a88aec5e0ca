package main

import (
	"fmt"
	"strings"
)

// markdownReadme returns the three most important figures, as far as they were
// measured.
func (r *report) markdownReadme() string {
	var out strings.Builder
	if row := r.row("standby"); row != nil {
		if ours, best := row.median(standbyName), row.best(); ours != nil && best != nil {
			fmt.Fprintf(&out, "- **A killed worker is replaced and serving again after %s** with one standby; the best peer, %s, takes %s.\n",
				inSeconds.format(ours.Spread.Median), best.Name, inSeconds.format(best.Spread.Median))
		}
	}
	if row := r.row("reload"); row != nil {
		failed, late := row.figure("prefork, rolling: failed"), row.figure("prefork, rolling, p99")
		if failed != nil && late != nil {
			fmt.Fprintf(&out, "- **Rolling reloads under load: %.0f requests%s failed**; the p99 is %.2f times the p99 without reloads.\n",
				failed.Value, strings.TrimPrefix(failed.Name, "prefork, rolling: failed"), late.Value)
		}
	}
	if row := r.row("rate"); row != nil {
		if rate := row.figure("alloc, net/http, load beside, prefork, a socket each, GOMAXPROCS=1 / one process"); rate != nil {
			fmt.Fprintf(&out, "- **%.2f times the requests of one process** with heavy allocation: two workers with GOMAXPROCS=1, each with its own socket", rate.Value)
			if p99 := row.figure("alloc, net/http, load beside, p99, prefork, a socket each, GOMAXPROCS=1 / one process"); p99 != nil {
				fmt.Fprintf(&out, "; the p99 is %.2f times", p99.Value)
			}
			out.WriteString(".\n")
		}
	}
	return out.String()
}

// The contenders of row standby that use this library. The goal refers to
// standbyName.
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

// median returns the measured series with that title, or nil.
func (r *result) median(title string) *series {
	for _, s := range r.Series {
		if s.title() == title && s.Spread.N > 0 {
			return s
		}
	}
	return nil
}

// best returns the peer with the smallest median.
func (r *result) best() (best *series) {
	for _, s := range r.Series {
		if s.Group == "" && !strings.HasPrefix(s.Name, "prefork") && s.Spread.N > 0 && (best == nil || s.Spread.Median < best.Spread.Median) {
			best = s
		}
	}
	return best
}

// figure returns the first figure whose name has the prefix, or nil.
func (r *result) figure(prefix string) *figure {
	for i := range r.Figures {
		if strings.HasPrefix(r.Figures[i].Name, prefix) {
			return &r.Figures[i]
		}
	}
	return nil
}
