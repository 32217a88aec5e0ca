//go:build unix

package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("reworded", reworded) }

// reworded is a program that reads from the file in its argument, for each
// manager, how it listens ("Listen tcp :80"), and a Config.Name in a line of its
// own ("Name x"). It answers with the pid of its manager.
func reworded() {
	text, err := os.ReadFile(os.Args[1])
	if prefork.IsWorker() {
		text, err = os.ReadFile(os.Args[1] + "." + strconv.Itoa(os.Getppid()))
	}
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		if err := os.WriteFile(os.Args[1]+"."+strconv.Itoa(os.Getpid()), text, 0o600); err != nil {
			log.Fatal(err)
		}
	}
	cfg := prefork.Config{MaxWorkers: 2, UpgradeTimeout: time.Minute, TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}}}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if name, ok := strings.CutPrefix(lines[0], "Name "); ok {
		cfg.Name, lines = name, lines[1:]
	}
	pm := testprog.NewManager(cfg)
	var lns []net.Listener
	for _, line := range lines {
		f := strings.Fields(line)
		listen := pm.Listen
		if f[0] == "ListenPerWorker" {
			listen = pm.ListenPerWorker
		}
		ln, err := listen(f[1], f[2])
		if err != nil {
			testprog.Print("error: %v", err)
			os.Exit(1)
		}
		lns = append(lns, ln)
	}
	if !prefork.IsWorker() {
		testprog.Print("manager %d", os.Getpid())
		go func() {
			<-prefork.TookOver()
			testprog.Print("took over %d", os.Getpid())
		}()
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		done := make(chan bool)
		for _, ln := range lns {
			context.AfterFunc(w.Context(), func() { ln.Close() })
			go func() {
				defer func() { done <- true }()
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					io.WriteString(conn, strconv.Itoa(w.ManagerPID()))
					conn.Close()
				}
			}()
		}
		for range lns {
			<-done
		}
		return nil
	})
	testprog.Print("ended %d", os.Getpid())
}

// freePort returns a port that no socket has.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// rewrite makes the next manager listen as text says. PORT is replaced.
func rewrite(t *testing.T, file, text, port string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "PORT", port)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// An upgrade succeeds if the new version words the addresses differently, or
// calls ListenPerWorker instead of Listen or back. No connection fails.
func TestUpgradeWithOtherWords(t *testing.T) {
	for name, versions := range map[string][]string{
		"networks and hosts": {"Listen tcp :PORT", "Listen tcp 0.0.0.0:PORT", "Listen tcp4 :PORT", "Listen tcp :PORT"},
		"from IPv4":          {"Listen tcp4 0.0.0.0:PORT", "Listen tcp :PORT"},
		"loopback":           {"Listen tcp 127.0.0.1:PORT", "Listen tcp localhost:PORT", "Listen tcp4 127.0.0.1:PORT"},
		"per worker":         {"Listen tcp 127.0.0.1:PORT", "ListenPerWorker tcp 127.0.0.1:PORT", "Listen tcp 127.0.0.1:PORT"},
		"shared":             {"ListenPerWorker tcp 127.0.0.1:PORT", "Listen tcp 127.0.0.1:PORT", "Listen tcp4 localhost:PORT", "ListenPerWorker tcp 127.0.0.1:PORT"},
		"order":              {"Listen tcp 127.0.0.1:0\nListen tcp 127.0.0.1:PORT", "ListenPerWorker tcp4 127.0.0.1:PORT\nListen tcp 127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			file, port := filepath.Join(t.TempDir(), "listens"), freePort(t)
			rewrite(t, file, versions[0], port)
			p := preforktest.Start(t, "reworded", file)
			manager := p.Expect(`^manager (\d+)$`)[1]
			p.ExpectAll(`^took over`, `worker ready`, `worker ready`)
			stop := make(chan bool)
			answers := make(chan string, 1)
			go func() {
				last := ""
				for {
					select {
					case <-stop:
						answers <- last
						return
					default:
						conn, err := net.Dial("tcp", "127.0.0.1:"+port)
						if err != nil {
							t.Errorf("connect: %v", err)
							continue
						}
						if b, err := io.ReadAll(conn); err != nil || len(b) == 0 {
							t.Errorf("a connection fails: %q, %v", b, err)
						} else {
							last = string(b)
						}
						conn.Close()
					}
				}
			}()
			for _, version := range versions[1:] {
				rewrite(t, file, version, port)
				pid, _ := strconv.Atoi(manager)
				syscall.Kill(pid, syscall.SIGUSR2)
				successor := p.Expect(`^(?:manager|error:) (.+)$`)[1]
				p.ExpectAll(`^took over `+successor+`$`, `^ended `+manager+`$`)
				manager = successor
			}
			close(stop)
			<-answers
			if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err != nil {
				t.Error(err)
			} else if b, err := io.ReadAll(conn); string(b) != manager {
				t.Errorf("manager %s answers, %v; want %s", b, err, manager)
			}
			pid, _ := strconv.Atoi(manager)
			syscall.Kill(pid, term)
			p.WaitGone()
		})
	}
}

// A unix socket is found by its file, also by another path of it.
func TestUpgradeWithOtherPath(t *testing.T) {
	file, dir := filepath.Join(t.TempDir(), "listens"), testprog.SocketDir(t)
	rewrite(t, file, "Listen unix "+dir+"/s", "")
	p := preforktest.Start(t, "reworded", file)
	manager := p.Expect(`^manager (\d+)$`)[1]
	p.ExpectAll(`^took over`, `worker ready`, `worker ready`)
	rewrite(t, file, "Listen unix "+dir+"/../"+filepath.Base(dir)+"/s", "")
	pid, _ := strconv.Atoi(manager)
	syscall.Kill(pid, syscall.SIGUSR2)
	successor := p.Expect(`^(?:manager|error:) (.+)$`)[1]
	p.ExpectAll(`^took over `+successor+`$`, `^ended `+manager+`$`)
	if got := answerOf(t, dir+"/s"); got != successor {
		t.Errorf("manager %s answers, want %s", got, successor)
	}
	pid, _ = strconv.Atoi(successor)
	syscall.Kill(pid, term)
	p.WaitGone()
	if _, err := os.Lstat(dir + "/s"); !os.IsNotExist(err) {
		t.Errorf("the successor leaves its socket file behind: %v", err)
	}
}

// An upgrade that can never succeed fails at once, with the reason: another
// Config.Name, or the same port on other hosts.
func TestUpgradeThatCannotSucceed(t *testing.T) {
	for then, want := range map[string]string{
		"Name b\nListen tcp 127.0.0.1:PORT": `upgrade failed.* Config.Name is .*b.*, and was .*a`,
		"Name a\nListen tcp :PORT":          `address already in use \(the previous manager has tcp 127.0.0.1:\d+: an upgrade cannot bind`,
	} {
		file, port := filepath.Join(t.TempDir(), "listens"), freePort(t)
		rewrite(t, file, "Name a\nListen tcp 127.0.0.1:PORT", port)
		p := preforktest.Start(t, "reworded", file)
		p.ExpectN(2, `worker ready`)
		rewrite(t, file, then, port)
		p.Signal(syscall.SIGUSR2)
		p.Expect(want)
		p.Signal(term)
		testprog.ExpectSuccess(t, p)
	}
}

// The sockets of a program may need more than the 128 KiB of one variable: each
// worker and the successor get them all.
func TestUpgradeWithManySockets(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("abstract unix sockets are Linux's")
	}
	const n = 1600
	prefix := fmt.Sprintf("@%s-%d-", strings.Repeat("x", 70), os.Getpid())
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "Listen unix %s%d\n", prefix, i)
	}
	file := filepath.Join(t.TempDir(), "listens")
	rewrite(t, file, text.String(), "")
	p := preforktest.Start(t, "reworded", file)
	manager := p.Expect(`^manager (\d+)$`)[1]
	p.ExpectAll(`^took over`, `worker ready`, `worker ready`)
	pid, _ := strconv.Atoi(manager)
	syscall.Kill(pid, syscall.SIGUSR2)
	successor := p.Expect(`^(?:manager|error:) (.+)$`)[1]
	p.ExpectAll(`^took over `+successor+`$`, `^ended `+manager+`$`)
	for _, i := range []int{0, n / 2, n - 1} {
		if got := answerOf(t, prefix+strconv.Itoa(i)); got != successor {
			t.Errorf("socket %d: manager %s answers, want %s", i, got, successor)
		}
	}
	pid, _ = strconv.Atoi(successor)
	syscall.Kill(pid, term)
	p.WaitGone()
}
