package main

import (
	"fmt"
	"strings"
)

// markdownReadme returns the three most important figures, as far as they were
// measured, as ratios of medians.
func (r *report) markdownReadme() string {
	var out strings.Builder
	if row := r.row("standby"); row != nil {
		if best := row.best(); best != nil {
			if ratio := row.figure(standbyName + " / " + best.Name); ratio != nil {
				fmt.Fprintf(&out, "- Killed worker to next answer, one standby: **%s** the time of %s.\n",
					ratio.value(), best.Name)
			}
		}
	}
	if row := r.row("reload"); row != nil {
		failed, late := row.figure("prefork, rolling: failed"), row.figure("prefork, rolling, p99")
		if failed != nil && late != nil {
			fmt.Fprintf(&out, "- Rolling reloads: **%.0f requests%s failed**; p99 %s the p99 without reloads.\n",
				failed.Value, strings.TrimPrefix(failed.Name, "prefork, rolling: failed"), late.value())
		}
	}
	if row := r.row("rate"); row != nil {
		if rate := row.figure("alloc, net/http, load beside, prefork, a socket each, GOMAXPROCS=1 / one process"); rate != nil {
			fmt.Fprintf(&out, "- Heavy allocation, 2 workers (GOMAXPROCS=1): **%s** the rate of one process.\n", rate.value())
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return out.String() + fmt.Sprintf("\nMeasured on %s, on\n%s.\n", r.Began.Format("2006-01-02"), r.Machine)
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
