//go:build unix

package capture

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"testing"
)

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close(context.Context) error { return nil }

// Each operation is a line that a worker writes, with others in one write of 32
// KiB. The time includes the write by the worker.
func BenchmarkLines(b *testing.B) {
	for _, length := range []int{20, 100, 1000} {
		for format, name := range []string{"plain", "prefix", "json"} {
			b.Run(name+"/"+strconv.Itoa(length), func(b *testing.B) {
				c := newCapture(b, Config{Sink: discard{}, Format: Format(format), Name: "web"})
				w := start(b, c, 0, 4711)
				lines := (32 << 10) / length
				text := bytes.Repeat([]byte(strings.Repeat("x", length-1)+"\n"), lines)
				b.SetBytes(int64(length))
				b.ReportAllocs()
				b.ResetTimer()
				for n := b.N; n > 0; n -= lines {
					w.out.Write(text[:min(n, lines)*length])
				}
				w.end()
				closeAll(b, c)
			})
		}
	}
}

// The parts of the work for a line, without the pipe.
func BenchmarkTake(b *testing.B) {
	c := newCapture(b, Config{Sink: discard{}, Format: JSON, Name: "web"})
	p := &pipe{c: c, w: &Worker{tail: new(tail)}, stream: Stdout}
	p.setHead(JSON, "web")
	text := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 300)
	b.SetBytes(100)
	b.ReportAllocs()
	for n := b.N; n > 0; n -= 300 {
		c.take(p, text[:min(n, 300)*100])
		c.flush()
	}
}
