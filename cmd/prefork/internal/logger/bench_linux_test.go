package logger

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// BenchmarkBesideSvlogd has svlogd and our logger write the same input, in turn.
// It reports MB/s and the processor time of the logger for each GB, and both as a
// ratio to svlogd. Start it with -benchtime 5x.
func BenchmarkBesideSvlogd(b *testing.B) {
	svlogd, err := exec.LookPath("svlogd")
	if err != nil {
		b.Skip("no svlogd (Debian: apt-get install runit)")
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	line := []byte("a line of a program that writes as fast as it can\n")
	for _, row := range []struct {
		name, flags string
		write       []byte
		times       int
	}{
		{"blocks", "", bytes.Repeat(line, 1200), 2000},
		{"blocks -t", "-t", bytes.Repeat(line, 1200), 500},
		{"lines", "", line, 500_000},
		{"lines -t", "-t", line, 500_000},
	} {
		b.Run(row.name, func(b *testing.B) {
			var rate, cpu [2][]float64
			for b.Loop() {
				for i := range 2 {
					cmd := exec.Command(svlogd, strings.Fields("-b 65536 "+row.flags+" .")...)
					if i == 1 {
						cmd = exec.Command(self, strings.Fields(row.flags+" .")...)
						cmd.Env = preforktest.Environ(b, "log")
					}
					cmd.Dir = b.TempDir()
					elapsed, used := measure(b, cmd, row.write, row.times)
					bytes := float64(len(row.write) * row.times)
					rate[i] = append(rate[i], bytes/1e6/elapsed.Seconds())
					cpu[i] = append(cpu[i], used.Seconds()/bytes*1e9)
				}
			}
			b.ReportMetric(median(rate[0]), "svlogd-MB/s")
			b.ReportMetric(median(rate[1]), "MB/s")
			b.ReportMetric(median(rate[1])/median(rate[0]), "x-MB/s")
			b.ReportMetric(median(cpu[0]), "svlogd-s/GB")
			b.ReportMetric(median(cpu[1]), "s/GB")
			b.ReportMetric(median(cpu[1])/median(cpu[0]), "x-s/GB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func measure(b *testing.B, cmd *exec.Cmd, data []byte, times int) (elapsed, used time.Duration) {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	err = cmd.Start()
	r.Close()
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	w.Fd() // blocking, as a program has it
	for range times {
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	w.Close()
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
