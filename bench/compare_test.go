//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// writeRuns writes a report for each factor, with one series whose samples are
// multiples of it, and returns the files.
func writeRuns(t *testing.T, name string, u unit, factors ...float64) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for i, factor := range factors {
		r := &run{result: &result{Name: "row"}}
		s := r.series("group", name, "", u)
		for _, v := range []float64{1, 2, 30} {
			s.add(v * factor)
		}
		r.summarize()
		file := filepath.Join(dir, fmt.Sprint(i, ".json"))
		if err := (&report{Rows: []*result{r.result}}).writeJSON(file); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after []float64
		unit          unit
		want          string
		slower        bool
	}{
		{"slower", []float64{1, 2, 3}, []float64{2, 4, 6}, inSeconds, "row  group, x  4.00 s  8.00 s  2.00 × (2.00–2.00)  slower", true},
		{"faster", []float64{2, 4, 6}, []float64{1, 2, 3}, inSeconds, "0.50 × (0.50–0.50)  faster", false},
		{"more requests", []float64{1, 2, 3}, []float64{2, 4, 6}, perSecond, "2.00 × (2.00–2.00)  faster", false},
		{"fewer requests", []float64{2, 4, 6}, []float64{1, 2, 3}, perSecond, "0.50 × (0.50–0.50)  slower", true},
		{"noise", []float64{1, 1.1, 1.2, 1}, []float64{1.1, 1, 1.2, 1.1}, inSeconds, ")  no change", false},
	} {
		var out strings.Builder
		err := compare(&out, writeRuns(t, "x", c.unit, c.before...), writeRuns(t, "x", c.unit, c.after...))
		if (err != nil) != c.slower || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v; want %q in\n%s", c.name, err, c.want, out.String())
		}
	}
}

func TestCompareDifferentReports(t *testing.T) {
	var out strings.Builder
	if err := compare(&out, writeRuns(t, "x", inSeconds, 1), writeRuns(t, "y", inSeconds, 1)); err != nil || !strings.Contains(out.String(), "not in all reports") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := compare(&out, writeRuns(t, "x", inSeconds, 1, 2), writeRuns(t, "x", inSeconds, 1)); err == nil {
		t.Error("no error for different numbers of reports")
	}
	if err := compare(&out, nil, nil); err == nil {
		t.Error("no error without reports")
	}
}
