package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints columns as wide as their contents. Columns in left are aligned
// to the left.
type table struct {
	head []string
	left []bool
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer, indent string) {
	widths := make([]int, len(t.head))
	all := append([][]string{t.head}, t.rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if t.left[i] {
				line.WriteString(cell + pad)
			} else {
				line.WriteString(pad + cell)
			}
			line.WriteString("  ")
		}
		fmt.Fprintf(w, "%s%s\n", indent, strings.TrimRight(line.String(), " "))
	}
}

// write prints a row with all its contenders.
func (r *result) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.What)
	if r.Bounds != "" {
		fmt.Fprintf(w, "  %s; took %.0f s\n", r.Bounds, r.Seconds)
	}
	if len(r.Series) > 0 {
		t := &table{head: []string{"", "median", "middle half", "n", "settings"}, left: []bool{true, false, true, false, true}}
		for _, s := range r.Series {
			if s.Spread.N == 0 {
				continue
			}
			t.add(s.title(), s.Unit.format(s.Spread.Median),
				s.Unit.format(s.Spread.Q1)+" – "+s.Unit.format(s.Spread.Q3), fmt.Sprint(s.Spread.N), s.Settings)
		}
		t.write(w, "  ")
	}
	for _, f := range r.Figures {
		fmt.Fprintf(w, "  %s\n", f)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "  not measured: %s: %s\n", l.Name, l.Why)
	}
	if r.Failed != "" {
		fmt.Fprintf(w, "  FAILED: %s\n", r.Failed)
	}
}

func (f figure) value() string {
	text := f.Unit.format(f.Value)
	if f.Low != 0 || f.High != 0 {
		text += fmt.Sprintf(" (%.2f–%.2f)", f.Low, f.High)
	}
	return text
}

func (f figure) String() string {
	if f.Goal == nil {
		return fmt.Sprintf("%s: %s", f.Name, f.value())
	}
	return fmt.Sprintf("%s: %s, %s: %s", f.Name, f.value(), f.Goal.format(f.Unit), f.verdict())
}

func (g *goal) format(u unit) string {
	sign := "≤"
	if g.AtLeast {
		sign = "≥"
	}
	return sign + " " + u.format(g.Bound)
}

// verdict returns "undecided" if the goal lies within the interval: the median
// of another run may be on its other side.
func (f figure) verdict() string {
	switch {
	case f.Low != f.High && f.Goal.reached(f.Low) != f.Goal.reached(f.High):
		return "undecided"
	case f.Reached:
		return "reached"
	}
	return "NOT REACHED"
}

// write prints the whole report.
func (r *report) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n%s, %s, %.0f s\n", r.Command, r.Machine, r.Began.Format("2006-01-02 15:04"), r.Seconds)
	if r.Quick {
		fmt.Fprintln(w, "A quick run with few rounds: not for publication.")
	}
	t := &table{head: []string{"row", "figure", "measured", "goal", ""}, left: []bool{true, true, false, false, true}}
	for _, row := range r.Rows {
		name := row.Name
		for _, f := range row.Figures {
			goal, verdict := "printed", ""
			if f.Goal != nil {
				goal, verdict = f.Goal.format(f.Unit), f.verdict()
			}
			t.add(name, f.Name, f.value(), goal, verdict)
			name = ""
		}
		if len(row.Figures) == 0 {
			t.add(name, "no figures", "", "", "")
		}
	}
	t.write(w, "")
	for _, row := range r.Rows {
		if row.Failed != "" {
			fmt.Fprintf(w, "%s FAILED: %s\n", row.Name, row.Failed)
		}
		for _, l := range row.LeftOut {
			fmt.Fprintf(w, "not measured in %s: %s: %s\n", row.Name, l.Name, l.Why)
		}
	}
}
