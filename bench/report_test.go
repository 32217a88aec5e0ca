//go:build linux

package main

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		want    spread
	}{
		{nil, spread{}},
		{[]float64{7}, spread{1, 7, 7, 7, 7, 7}},
		{[]float64{4, 1, 3, 2}, spread{4, 2.5, 1.75, 3.25, 1, 4}},
		{[]float64{5, 1, 4, 2, 3}, spread{5, 3, 2, 4, 1, 5}},
	} {
		if got := spreadOf(c.samples); got != c.want {
			t.Errorf("spreadOf(%v) = %+v, want %+v", c.samples, got, c.want)
		}
	}
}

func TestSpreadLeavesTheSamplesInOrder(t *testing.T) {
	samples := []float64{3, 1, 2}
	spreadOf(samples)
	if !reflect.DeepEqual(samples, []float64{3, 1, 2}) {
		t.Error(samples)
	}
}

func TestVariation(t *testing.T) {
	if got := variation([]int{32, 32}); got != 0 {
		t.Errorf("even counts: %v", got)
	}
	if got := variation([]int{0, 64}); !near(got, 1) {
		t.Errorf("all counts on one of two: %v, want 1", got)
	}
	if got := variation([]int{64, 0, 0, 0}); !near(got, math.Sqrt(3)) {
		t.Errorf("all counts on one of four: %v, want √3", got)
	}
}

func TestRatio(t *testing.T) {
	ratio, low, high := ratioOf([]float64{2, 2, 2}, []float64{1, 1, 1})
	if ratio != 2 || low != 2 || high != 2 {
		t.Errorf("%v (%v–%v), want 2 (2–2)", ratio, low, high)
	}
	ratio, low, high = ratioOf([]float64{1, 2, 3, 4, 5}, []float64{2, 3, 4})
	if ratio != 1 || low >= 1 || high <= 1 {
		t.Errorf("%v (%v–%v), want 1 inside the interval", ratio, low, high)
	}
	if r, l, h := ratioOf([]float64{1, 2, 3, 4, 5}, []float64{2, 3, 4}); r != ratio || l != low || h != high {
		t.Error("a second call returns another interval")
	}
}

// TestRatioOfRounds checks that a disturbance that affects all contenders of a
// round does not affect their ratio.
func TestRatioOfRounds(t *testing.T) {
	samples, base := []float64{20, 40, 80, 160, 320}, []float64{10, 20, 40, 80, 160}
	if ratio, low, high := ratioOf(samples, base); ratio != 2 || low != 2 || high != 2 {
		t.Errorf("%v (%v–%v), want 2 (2–2)", ratio, low, high)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		value, low, high float64
		goal             *goal
		want             string
	}{
		{1.0, 0.9, 1.05, atMost(1.1), "reached"},
		{1.0, 0.9, 1.2, atMost(1.1), "undecided"},
		{1.15, 1.05, 1.2, atMost(1.1), "undecided"},
		{1.15, 1.12, 1.2, atMost(1.1), "NOT REACHED"},
		{1.0, 0.9, 1.2, atLeast(1), "undecided"},
		{1.1, 1.02, 1.2, atLeast(1), "reached"},
		{0, 0, 0, atMost(0), "reached"},
		{7, 0, 0, atMost(0), "NOT REACHED"},
	} {
		f := figure{Value: c.value, Low: c.low, High: c.high, Goal: c.goal, Reached: c.goal.reached(c.value)}
		if got := f.verdict(); got != c.want {
			t.Errorf("%v, %v: %s, want %s", f.value(), c.goal.format(count), got, c.want)
		}
	}
}

func TestTurns(t *testing.T) {
	all := []string{"a", "b", "c"}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(turns(round, all), ""); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
	if got := turns(1, []int{}); len(got) != 0 {
		t.Error(got)
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit unit
		v    float64
		want string
	}{
		{inSeconds, 42e-6, "42 µs"}, {inSeconds, 1.234e-3, "1.23 ms"}, {inSeconds, 0.123, "123 ms"}, {inSeconds, 12.34, "12.3 s"},
		{inBytes, 2048, "2.00 KiB"}, {inBytes, 900 << 10, "900 KiB"}, {inBytes, 64 << 20, "64.0 MiB"},
		{times, 1.155, "1.16 ×"}, {perSecond, 64321, "64321/s"}, {perSecond, 0, "0/s"}, {inNanos, 3.9, "3.90 ns"}, {count, 0.125, "0.12"}, {count, 1234, "1234"},
	} {
		if got := c.unit.format(c.v); got != c.want {
			t.Errorf("%v in %q: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		goal *goal
		v    float64
		want bool
	}{
		{atMost(1.1), 1.1, true}, {atMost(1.1), 1.11, false}, {atMost(0), 0, true},
		{atLeast(1), 1, true}, {atLeast(1), 0.99, false}, {atMost(1), math.NaN(), false}, {atLeast(1), math.NaN(), false},
	} {
		if got := c.goal.reached(c.v); got != c.want {
			t.Errorf("%v of %+v: %v", c.v, *c.goal, got)
		}
	}
}

// sample returns a report with every kind of content.
func sample() *report {
	r := &run{result: &result{Name: "standby", What: "kill → serving", Beside: "peers", Goal: "≤ 0.5 ×", Bounds: "3 rounds", Seconds: 2}}
	ours, peer, none := r.series("", standbyName, "Standby 1", inSeconds), r.series("", "peer", "", inSeconds), r.series("", "gone", "", inSeconds)
	for _, v := range []float64{0.001, 0.002, 0.003} {
		ours.add(v)
		peer.add(v * 10)
	}
	r.ratio(ours, peer, atMost(0.5))
	r.ratio(ours, none, atMost(0.5)) // no samples, so no figure
	r.figure("wake-ups", 3, perSecond, atMost(0))
	r.figure("printed", 3, count, nil)
	r.note("A note.")
	r.LeftOut = append(r.LeftOut, leftOut{"unicorn", "not installed"})
	r.summarize()
	return &report{
		Machine: machine{CPU: "CPU", Cores: 2, Memory: 1 << 30, Kernel: "Linux 6", Go: "go1.26", Arch: "amd64", Load: "0.1"},
		Began:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 120, Command: "go run ./bench", Rows: []*result{r.result},
	}
}

func TestJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	want := sample()
	if err := want.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got.Rows[0], want.Rows[0])
	}
	os.WriteFile(file, []byte("no JSON"), 0o600)
	if _, err := readReport(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("malformed file: %v", err)
	}
}

func TestPrinted(t *testing.T) {
	var out strings.Builder
	r := sample()
	r.Quick = true
	r.Rows[0].write(&out)
	r.write(&out)
	for _, want := range []string{
		"standby: kill → serving", "  prefork, one standby  2.00 ms  1.50 ms – 2.50 ms  3  Standby 1",
		"prefork, one standby / peer: 0.10 × (", "≤ 0.50 ×: reached", "wake-ups: 3.00/s, ≤ 0/s: NOT REACHED", "printed: 3\n", "A note.",
		"not measured: unicorn: not installed", "not measured in standby: unicorn", "few rounds: not for publication", "2 cores (CPU)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "gone") {
		t.Errorf("output has a contender that was not measured:\n%s", out.String())
	}
}

func TestDocuments(t *testing.T) {
	root := t.TempDir()
	docs := filepath.Join(root, "docs")
	os.Mkdir(docs, 0o755)
	write := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, readme := filepath.Join(docs, "PERFORMANCE.md"), filepath.Join(root, "README.md")
	write(page, "before\n<!-- bench:table -->\nold\n<!-- bench -->\nbetween\n<!-- bench:unknown -->kept<!-- bench -->\nafter\n")
	write(readme, "<!-- bench:row standby -->\n<!-- bench -->\n<!-- bench:readme --><!-- bench -->")
	for range 2 { // the second call replaces the text of the first
		if err := sample().updateDocs(docs); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(page)
	for _, want := range []string{"before\n<!-- bench:table -->\n| row", "| standby | prefork, one standby / peer | 0.10 ×", "| ≤ 0.50 × | reached |", "**not reached**", "<!-- bench -->\nbetween", "-->kept<!--", "after\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("document lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "old") {
		t.Errorf("document still has the old table:\n%s", got)
	}
	if got, _ := os.ReadFile(readme); !strings.Contains(string(got), "one standby / peer: 0.10 ×") || !strings.Contains(string(got), "**0.10 × (0.10–0.10)** the time of peer.\n\nMeasured on ") {
		t.Errorf("README: %s", got)
	}
	if _, err := os.Stat(filepath.Join(docs, "performance.svg")); err != nil {
		t.Error(err)
	}
	write(page, "<!-- bench:table -->")
	if err := sample().updateDocs(docs); err == nil || !strings.Contains(err.Error(), page) {
		t.Errorf("mark without an end: %v", err)
	}
	r := sample()
	r.Quick = true
	if err := r.updateDocs(docs); err == nil {
		t.Error("a quick run updates the documents")
	}
}

func TestParseWrk(t *testing.T) {
	const out = `Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.09ms    1.19ms  27.25ms   90.51%
    Req/Sec    66.02k     9.92k   82.51k    70.00%
  Latency Distribution
     50%  754.00us
     99%    5.61ms
  131402 requests in 2.00s, 17.04MB read
%sRequests/sec:  65671.20
Transfer/sec:      8.52MB
`
	got, err := parseWrk(strings.Replace(out, "%s", "", 1))
	if err != nil || got != (wrkResult{65671.20, 5610 * time.Microsecond, ""}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = parseWrk(strings.Replace(out, "%s", "  Socket errors: connect 0, read 3, write 0, timeout 0\n", 1))
	if err != nil || !strings.Contains(got.bad, "read 3") {
		t.Errorf("%+v, %v", got, err)
	}
	const padded = "1.05s " // wrk pads with a space
	got, err = parseWrk(strings.Replace(strings.Replace(out, "5.61ms", padded, 1), "%s", "", 1))
	if err != nil || got.p99 != 1050*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseWrk("unable to connect"); err == nil {
		t.Error("no error for malformed output")
	}
}

func TestReadBody(t *testing.T) {
	for _, c := range []struct {
		in, want string
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1234", "1234"},
		{"HTTP/1.1 200 OK\r\ncontent-length:4\r\n\r\n1234", "1234"},
		{"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\n1234", ""},
		{"", ""},
	} {
		got, err := readBody(strings.NewReader(c.in))
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
}
