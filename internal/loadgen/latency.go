//go:build unix

package loadgen

import (
	"math"
	"math/bits"
	"time"
)

// Latencies counts how long requests took, in buckets that each are a sixteenth as wide as the times in them: what it
// holds costs the same for ten requests and for ten million. The zero value is empty; it may be copied.
type Latencies struct {
	Max time.Duration // of all

	n       int
	buckets [buckets]int
}

const (
	steps   = 16                         // in each power of two
	base    = 10                         // 1,024 ns: what is faster goes into the first bucket
	buckets = 1 + (37-base)*steps        // up to 2³⁷ ns, which is more than two minutes
	least   = time.Duration(1) << (base) // the upper end of the first bucket
)

func bucket(d time.Duration) int {
	if d < least {
		return 0
	}
	power := bits.Len64(uint64(d)) - 1
	step := int(d>>(power-4)) - steps // the four bits behind the highest
	return min(1+(power-base)*steps+step, buckets-1)
}

// upper is where a bucket ends.
func upper(b int) time.Duration {
	if b == 0 {
		return least
	}
	power, step := base+(b-1)/steps, (b-1)%steps
	return time.Duration(steps+step+1) << (power - 4)
}

// Add counts one request.
func (l *Latencies) Add(d time.Duration) {
	l.n++
	l.buckets[bucket(d)]++
	l.Max = max(l.Max, d)
}

// Merge adds what another has counted.
func (l *Latencies) Merge(other *Latencies) {
	l.n += other.n
	for b, n := range other.buckets {
		l.buckets[b] += n
	}
	l.Max = max(l.Max, other.Max)
}

// Percentile returns the time within which p of a hundred requests were answered, for instance the median for 50. It is
// at most a sixteenth too long (below 1 µs, or beyond two minutes, it says no more than that); 0 if there were no requests.
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
