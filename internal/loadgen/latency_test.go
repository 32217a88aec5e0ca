//go:build unix

package loadgen

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	for b := range buckets - 1 {
		if got := bucket(upper(b) - 1); got != b {
			t.Errorf("%v is in bucket %d, want %d", upper(b)-1, got, b)
		}
		if got := bucket(upper(b)); got != b+1 {
			t.Errorf("%v is in bucket %d, want %d", upper(b), got, b+1)
		}
	}
	if b := bucket(0); b != 0 {
		t.Errorf("0 is in bucket %d", b)
	}
	if b := bucket(24 * time.Hour); b != buckets-1 {
		t.Errorf("a day is in bucket %d of %d", b, buckets)
	}
}

func TestPercentile(t *testing.T) {
	var none, all Latencies
	if got := none.Percentile(99); got != 0 {
		t.Errorf("percentile of no requests: %v, want 0", got)
	}
	var times []time.Duration
	var parts [3]Latencies
	for i := range 10_000 {
		d := time.Duration(rand.ExpFloat64() * float64(3*time.Millisecond))
		times = append(times, d)
		parts[i%3].Add(d)
	}
	for i := range parts {
		all.Merge(&parts[i])
	}
	slices.Sort(times)
	for _, p := range []float64{0.01, 1, 50, 90, 99, 99.9, 100} {
		want := times[int(p/100*float64(len(times)))-1]
		if got := all.Percentile(p); got < want || got > max(want+want/16+1, least) {
			t.Errorf("p%v = %v, want %v plus at most a sixteenth", p, got, want)
		}
	}
	if all.Max != times[len(times)-1] || all.Percentile(100) != all.Max {
		t.Errorf("max is %v and p100 %v, want %v", all.Max, all.Percentile(100), times[len(times)-1])
	}
}

func TestMerge(t *testing.T) {
	var r Result
	for range 3 {
		part := Result{OK: 1, Failed: 2, IdleClosed: 3, Closing: 4, Dialed: 5}
		part.Latency.Add(time.Millisecond)
		for range maxErrors - 1 {
			part.Errors = append(part.Errors, &Error{Stage: Dial})
		}
		r.Merge(part)
	}
	if want := "ok 3, failed 6, idle closed 9, closing 12, dialed 15"; r.String() != want || len(r.Errors) != maxErrors || r.Latency.Percentile(50) != time.Millisecond {
		t.Errorf("%v, %d errors, median %v; want %s", r, len(r.Errors), r.Latency.Percentile(50), want)
	}
}
