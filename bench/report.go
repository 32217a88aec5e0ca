package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"
)

// report is the result of a run. It is the contents of the JSON file, and the
// source of the tables and plots.
type report struct {
	Machine machine   `json:"machine"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Command string    `json:"command"`
	Quick   bool      `json:"quick,omitempty"` // few rounds: not for publication
	Rows    []*result `json:"rows"`
}

// result is the result of one row.
type result struct {
	Name    string    `json:"name"`
	What    string    `json:"what"`
	Beside  string    `json:"beside"`
	Goal    string    `json:"goal"`
	Bounds  string    `json:"bounds"` // counts and durations
	Seconds float64   `json:"seconds"`
	Series  []*series `json:"series,omitempty"`
	Figures []figure  `json:"figures,omitempty"`
	Notes   []string  `json:"notes,omitempty"`
	LeftOut []leftOut `json:"leftOut,omitempty"`
	Failed  string    `json:"failed,omitempty"` // why the row is incomplete
}

// series holds the samples of one contender.
type series struct {
	Name     string    `json:"name"`
	Group    string    `json:"group,omitempty"` // only series of one group are compared
	Settings string    `json:"settings,omitempty"`
	Unit     unit      `json:"unit"`
	Spread   spread    `json:"spread"`
	Samples  []float64 `json:"samples"`
}

func (s *series) add(v float64)           { s.Samples = append(s.Samples, v) }
func (s *series) addTime(d time.Duration) { s.add(d.Seconds()) }
func (s *series) title() string           { return join(s.Group, s.Name) }
func join(group, name string) string {
	if group == "" {
		return name
	}
	return group + ", " + name
}

// figure is a number that may have a goal.
type figure struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Low     float64 `json:"low,omitempty"` // the interval of a ratio
	High    float64 `json:"high,omitempty"`
	Unit    unit    `json:"unit"`
	Goal    *goal   `json:"goal,omitempty"` // nil means that there is none
	Reached bool    `json:"reached"`
}

// goal is a bound for a figure.
type goal struct {
	AtLeast bool    `json:"atLeast,omitempty"` // false means at most
	Bound   float64 `json:"bound"`
}

func atMost(v float64) *goal  { return &goal{Bound: v} }
func atLeast(v float64) *goal { return &goal{AtLeast: true, Bound: v} }

func (g *goal) reached(v float64) bool {
	if g.AtLeast {
		return v >= g.Bound
	}
	return v <= g.Bound
}

// leftOut is a contender that was not measured, and the reason.
type leftOut struct{ Name, Why string }

// unit determines the format of a number.
type unit string

const (
	inSeconds unit = "s"
	inBytes   unit = "B"
	perSecond unit = "/s"
	inNanos   unit = "ns"
	times     unit = "×"
	count     unit = ""
)

func (u unit) format(v float64) string {
	switch u {
	case inSeconds:
		switch {
		case v < 1e-3:
			return fmt.Sprintf("%.0f µs", v*1e6)
		case v < 1:
			return digits(v*1e3) + " ms"
		}
		return digits(v) + " s"
	case inBytes:
		switch {
		case math.Abs(v) < 10<<10:
			return fmt.Sprintf("%.2f KiB", v/1024)
		case math.Abs(v) < 10<<20:
			return fmt.Sprintf("%.0f KiB", v/1024)
		}
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case times:
		return fmt.Sprintf("%.2f ×", v)
	case perSecond:
		return digits(v) + "/s"
	case inNanos:
		return digits(v) + " ns"
	case count:
		if v == math.Trunc(v) {
			return fmt.Sprintf("%.0f", v)
		}
	}
	return digits(v)
}

// digits formats v with three significant digits, or with all digits before the
// decimal point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 10:
		return fmt.Sprintf("%.2f", v)
	case a < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// summarize computes the spread of each series.
func (r *result) summarize() {
	for _, s := range r.Series {
		s.Spread = spreadOf(s.Samples)
	}
}

func (r *report) writeJSON(file string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// machine describes the machine of a run, which should be idle otherwise.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Arch   string `json:"arch"`
	Load   string `json:"load"` // load average of the last minute; should be near 0
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB, %s, %s %s, initial load %s", m.Cores, m.CPU, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Arch, m.Load)
}

// readReport reads a file written by writeJSON.
func readReport(file string) (*report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: not a report of bench: %w", file, err)
	}
	return r, nil
}
