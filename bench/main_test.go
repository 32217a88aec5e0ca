//go:build linux

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var long = flag.Bool("long", false, "run all rows, not only the fast ones")

// TestMain fails if a test leaves a process or a file.
func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("TMPDIR", dir) // for the files of the runs
	code := m.Run()
	if left := children(os.Getpid()); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "leftover processes: %v\n", left)
		code = 1
	}
	if left, _ := filepath.Glob(dir + "/prefork-bench-*"); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "leftover files: %v\n", left)
		code = 1
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// quick measures rows with few rounds and returns the report and the output.
func quick(t *testing.T, rows ...string) (*report, string) {
	t.Helper()
	var out bytes.Buffer
	o := options{Only: rows, Quick: true, Fleet: 5, out: &out, log: io.Discard}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	rep, err := o.report(ctx)
	if err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if rep == nil {
		t.FailNow()
	}
	rep.write(&out)
	return rep, out.String()
}

func TestRows(t *testing.T) {
	names := []string{"respawn", "status", "policy", "roll"}
	if *long {
		names = nil // all
	}
	rep, out := quick(t, names...)
	for _, row := range rep.Rows {
		checkRow(t, row, out)
	}
	dir := t.TempDir()
	if err := rep.draw(dir); err != nil {
		t.Error(err)
	}
	for _, row := range rep.Rows {
		if len(row.Series) > 0 {
			if svg, err := os.ReadFile(filepath.Join(dir, row.Name+".svg")); err != nil || !bytes.Contains(svg, []byte("</svg>")) {
				t.Errorf("the plot of %s: %d bytes, %v", row.Name, len(svg), err)
			}
		}
	}
}

func checkRow(t *testing.T, row *result, out string) {
	t.Helper()
	needsFigures := row.Name != "main" || len(row.LeftOut) == 0 // those of main require cgo
	if len(row.Figures) == 0 && needsFigures {
		t.Errorf("%s has no figures:\n%s", row.Name, out)
	}
	for _, s := range row.Series {
		if len(s.Samples) == 0 || s.Spread.Min < 0 || s.Spread.Median <= 0 && s.Unit == inSeconds {
			t.Errorf("%s, %s: %+v", row.Name, s.title(), s.Spread)
		}
	}
	reportSkipped(t, row)
}

// reportSkipped reports the contenders that are not installed. In CI all must
// be.
func reportSkipped(t *testing.T, row *result) {
	for _, l := range row.LeftOut {
		if os.Getenv("CI") == "true" {
			t.Errorf("%s: not measured: %s: %s", row.Name, l.Name, l.Why)
		} else {
			t.Logf("%s: not measured: %s: %s", row.Name, l.Name, l.Why)
		}
	}
}

// TestPeers checks that the peers start, lose their worker and serve again.
func TestPeers(t *testing.T) {
	rep, out := quick(t, "standby")
	reportSkipped(t, rep.Rows[0])
	if n := len(rep.Rows[0].Series) + len(rep.Rows[0].LeftOut); n != len(servers)+3 {
		t.Errorf("%d contenders were measured or skipped, want %d:\n%s", n, len(servers)+3, out)
	}
}

func TestUnknownRow(t *testing.T) {
	_, err := (&options{Only: []string{"respawn", "speed"}, out: io.Discard, log: io.Discard}).report(context.Background())
	if err == nil || !strings.Contains(err.Error(), `no row "speed"`) {
		t.Error(err)
	}
}

func TestTooManyWorkers(t *testing.T) {
	allowed, file := tasksAllowed()
	if file == "" {
		t.Skip("no cgroup limits the number of processes")
	}
	if err := checkTaskLimit(allowed); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "--fleet") {
		t.Error(err)
	}
	if err := checkTaskLimit(1); err != nil {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	var out strings.Builder
	if err := (&options{List: true, out: &out}).run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if !strings.Contains(out.String(), row.name) {
			t.Errorf("row %s is not in the list", row.name)
		}
	}
}

// TestCanceled checks that a canceled run ends soon, returns an error, and
// leaves no process or file.
func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	o := options{Only: []string{"idle"}, Fleet: 2, out: io.Discard, log: cancels{cancel}}
	rep, err := o.report(ctx)
	if err == nil || rep == nil || rep.Rows[0].Failed == "" {
		t.Errorf("%v, %+v", err, rep)
	}
}

// cancels cancels a run at the first line of progress of the row idle.
type cancels struct{ cancel func() }

func (c cancels) Write(b []byte) (int, error) {
	if bytes.HasPrefix(b, []byte("# idle")) {
		c.cancel()
	}
	return len(b), nil
}

func TestFailingContender(t *testing.T) {
	l := newLauncher()
	defer l.close()
	r := &run{result: new(result), ctx: context.Background(), dir: t.TempDir(), launcher: l}
	p, err := r.start(spec{name: "failing", args: []string{"/bin/sh", "-c", "echo main; echo oops >&2; (sleep 1000 &) ; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if _, err := p.expect(r.ctx, "main"); err != nil {
		t.Error(err)
	}
	<-p.exited
	if err := p.stop(); err != nil { // also the leftover process, which holds the output open
		t.Error(err)
	}
	if _, err := p.expect(r.ctx, "ready"); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("the error does not quote standard error: %v", err)
	}
	if left, _ := processesOf(p.id); len(left) > 0 {
		t.Errorf("leftover processes: %v", left)
	}
}

// TestStopDuringExec checks that stop does not overlook a process that is in
// the middle of an exec.
func TestStopDuringExec(t *testing.T) {
	l := newLauncher()
	defer l.close()
	r := &run{result: new(result), ctx: context.Background(), dir: t.TempDir(), launcher: l}
	for range 100 {
		p, err := r.start(spec{name: "leftover", args: []string{"/bin/sh", "-c", "(sleep 1000 &) ; exit 3"}})
		if err != nil {
			t.Fatal(err)
		}
		<-p.exited
		if err := p.stop(); err != nil {
			t.Error(err)
		}
		if left, _ := processesOf(p.id); len(left) > 0 {
			t.Errorf("leftover processes: %v", left)
			p.stop()
		}
	}
}
