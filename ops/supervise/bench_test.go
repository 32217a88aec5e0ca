//go:build unix

package supervise_test

import (
	"testing"

	"github.com/prefork-go/prefork/ops/supervise"
)

// BenchmarkWrite is a start and an end, in the directory for temporary files: pid,
// stat and status are replaced twice.
func BenchmarkWrite(b *testing.B) {
	d := open(b, b.TempDir())
	down := supervise.Status{Since: running.Since}
	for b.Loop() {
		must(b, d.Write(running))
		must(b, d.Write(down))
	}
}
