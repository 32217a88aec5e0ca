//go:build unix

package loadgen

import (
	"math"
	"math/bits"
	"time"
)

// Latencies is a histogram of response times. The width of a bucket is a
// sixteenth of the times in it, so that the size does not depend on the number
// of requests. The zero value is empty. A Latencies may be copied.
type Latencies struct {
	Max time.Duration // the longest

	n       int
	buckets [buckets]int
}

const (
	steps   = 16                         // buckets for each power of two
	base    = 10                         // 1,024 ns; the first bucket holds all shorter times
	buckets = 1 + (37-base)*steps        // up to 2³⁷ ns, more than two minutes
	least   = time.Duration(1) << (base) // the upper end of the first bucket
)

func bucket(d time.Duration) int {
	if d < least {
		return 0
	}
	power := bits.Len64(uint64(d)) - 1
	step := int(d>>(power-4)) - steps // the four bits after the highest
	return min(1+(power-base)*steps+step, buckets-1)
}

// upper returns the end of a bucket.
func upper(b int) time.Duration {
	if b == 0 {
		return least
	}
	power, step := base+(b-1)/steps, (b-1)%steps
	return time.Duration(steps+step+1) << (power - 4)
}

// Add adds the time of one request.
func (l *Latencies) Add(d time.Duration) {
	l.n++
	l.buckets[bucket(d)]++
	l.Max = max(l.Max, d)
}

// Merge adds the times in other.
func (l *Latencies) Merge(other *Latencies) {
	l.n += other.n
	for b, n := range other.buckets {
		l.buckets[b] += n
	}
	l.Max = max(l.Max, other.Max)
}

// Percentile returns the time within which p percent of the requests were
// answered; 50 is the median. The result is at most a sixteenth too long,
// except below 1 µs and above two minutes. It is zero if there were no
// requests.
func (l *Latencies) Percentile(p float64) time.Duration {
	want := int(math.Ceil(float64(l.n) * p / 100))
	seen := 0
	for b, n := range l.buckets {
		if seen += n; n > 0 && seen >= want {
			if b == buckets-1 {
				return l.Max
			}
			return min(upper(b), l.Max)
		}
	}
	return l.Max
}
