//go:build unix

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("journaled", journaled) }

// journaled is a program with a journal beside its control socket.
func journaled() {
	socket := os.Args[1]
	cfg := prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.DiscardHandler)}
	if !prefork.IsWorker() {
		j, err := journal.Open(filepath.Join(filepath.Dir(socket), "web.journal"), journal.Config{})
		if err != nil {
			testprog.Print("journal: %v", err)
			return
		}
		defer j.Close()
		cfg.Observe = journal.Observer(j, nil)
	}
	pm := testprog.NewManager(cfg)
	detach, err := control.Attach(control.Config{Path: socket}, pm)
	if err != nil {
		testprog.Print("attach: %v", err)
		return
	}
	defer detach()
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		<-w.Context().Done()
		return nil
	})
}

// After the manager was killed, status is 3 and names the time of its last record.
// The next start takes the place of its socket.
func TestKilledManager(t *testing.T) {
	t.Parallel()
	dir := testprog.SocketDir(t)
	t.Cleanup(func() { removeAll(dir) })
	socket := filepath.Join(dir, "web.prefork.sock")
	for range 2 {
		p := preforktest.Start(t, "journaled", socket)
		if status, stdout, stderr := command("-s", socket, "wait", "settled"); status != 0 {
			t.Fatalf("wait: status %d, %q, %q", status, stdout, stderr)
		}
		if status, stdout, _ := command("-s", socket, "--json", "status"); status != 0 || !regexp.MustCompile(`"workers":\[\{"id":1,`).MatchString(stdout) {
			t.Errorf("status %d, %s", status, stdout)
		}
		p.Signal(syscall.SIGKILL)
		p.Wait()
		status, stdout, stderr := command("-s", socket, "status")
		if status != 3 || stdout != "" || !regexp.MustCompile(`which its manager has left behind; the last record of its journal is from 20\d\d-`).MatchString(stderr) {
			t.Errorf("after SIGKILL: status %d, %q, %q", status, stdout, stderr)
		}
		p.WaitGone()
	}
}
