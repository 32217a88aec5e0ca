//go:build linux

package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("confined", confined) }

// confined runs workers as another user with a root directory of their own.
func confined() {
	pm, err := prefork.New(prefork.Config{MaxWorkers: 2, Resources: prefork.Resources{
		User: os.Args[1], Group: os.Args[2], Groups: []string{}, Chroot: os.Args[3], NoNewPrivs: true, GOMAXPROCS: 1, Nice: 5,
		Rlimits: []prefork.Rlimit{{Resource: "core"}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("serving on %v", ln.Addr())
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		groups, _ := os.Getgroups()
		dir, _ := os.Getwd()
		_, err := os.Stat("/proc")
		testprog.Print("worker %d: uid %d gid %d groups %v dir %s proc %v maxprocs %s listens %v", w.Slot(), os.Getuid(), os.Getegid(), groups, dir,
			err == nil, os.Getenv("GOMAXPROCS"), ln.Addr() != nil)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				for _, name := range []string{"/id", "/setuid"} {
					id := exec.Command(name)
					id.Stdin = os.Stdin // there is no /dev/null in the root
					out, err := id.CombinedOutput()
					fmt.Fprintf(conn, "%s: %s%v\n", name, out, err)
				}
				conn.Close()
			}
		}()
		<-w.Context().Done()
		return nil
	})
}

// copyFile copies a program.
func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err == nil {
		err = os.Chmod(to, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// withID copies the program id and its libraries into a root directory, and a
// second time with the setuid bit.
func withID(t *testing.T, root string) {
	t.Helper()
	id, err := exec.LookPath("id")
	if err != nil {
		preforktest.Skipf(t, "there is no id")
	}
	libraries, _ := exec.Command("ldd", id).Output() // none if it is linked statically
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		copyFile(t, path, filepath.Join(root, path), 0o755)
	}
	copyFile(t, id, filepath.Join(root, "id"), 0o755)
	copyFile(t, id, filepath.Join(root, "setuid"), 0o755|os.ModeSetuid)
}

// The worker runs as another user, in a chroot, from a binary that only root
// may execute, with no new privileges. It serves, and is replaced after a
// crash. Processes that it starts run as that user, in none of the manager's
// groups.
func TestResources(t *testing.T) {
	if os.Getuid() != 0 {
		preforktest.Skipf(t, "only root can have workers of another user")
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	withID(t, root)
	p := preforktest.New(t, "confined", "nobody", "12345", root)
	program := t.TempDir() + "/program"
	copyFile(t, p.Cmd.Path, program, 0o700)
	p.Cmd.Path = program
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{4, 24, 54321}}}
	p.Start()
	address := p.Expect(`^serving on (\S+)$`)[1]
	want := `: uid 65534 gid 12345 groups \[\] dir / proc false maxprocs 1 listens true$`
	p.ExpectN(2, `^worker \d`+want)
	const answer = "/id: uid=65534 gid=12345 groups=12345\n<nil>\n/setuid: uid=65534 gid=12345 groups=12345\n<nil>\n"
	for range 4 {
		if got := greeting(t, address); got != answer {
			t.Errorf("a child of the worker prints %q, want %q", got, answer)
		}
	}
	children, err := preforktest.Children(p.PID())
	if err != nil || len(children) != 2 {
		t.Fatal(children, err)
	}
	syscall.Kill(children[0].PID, syscall.SIGKILL)
	p.Expect(`^worker \d` + want)
	if got := greeting(t, address); got != answer {
		t.Errorf("a child of the worker prints %q, want %q", got, answer)
	}
	p.Signal(term)
	p.Wait()
}

// greeting returns the greeting of a server.
func greeting(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// New refuses settings that it can know to be wrong. A worker never runs as
// root instead.
func TestResourcesRefused(t *testing.T) {
	for field, r := range map[string]prefork.Resources{
		"User":       {User: "no-such-user"},
		"Chroot":     {Chroot: "/no/such/directory"},
		"Rlimits":    {Rlimits: []prefork.Rlimit{{Resource: "patience"}}},
		"GOMAXPROCS": {GOMAXPROCS: -2},
		"Cgroup":     {Cgroup: "/no/such/cgroup"},
	} {
		var bad *prefork.ConfigError
		if _, err := prefork.New(prefork.Config{Name: t.Name() + field, Resources: r}); !errors.As(err, &bad) || bad.Field != "Resources."+field {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := exec.LookPath("id"); err != nil || os.Getuid() != 0 {
		return
	}
	// The directory is removed after New has checked it: the worker cannot
	// enter its root, and exits.
	p := preforktest.Start(t, "vanishing", testprog.SocketDir(t)+"/root")
	p.Expect(`cannot apply its resources: .*hroot`)
	p.Signal(term)
	p.Wait()
}

func init() { preforktest.Register("vanishing", vanishing) }

func vanishing() {
	if !prefork.IsWorker() {
		os.Mkdir(os.Args[1], 0o755)
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Resources: prefork.Resources{Chroot: os.Args[1]}, BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
		os.Remove(os.Args[1])
	}})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("it works")
		<-w.Context().Done()
		return nil
	})
}

func init() { preforktest.Register("narrow", narrow) }

// narrow is a manager whose workers may not grow their address space. It prints
// their statuses.
func narrow() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Resources: prefork.Resources{Rlimits: []prefork.Rlimit{{Resource: "as", Soft: 64 << 20}}}})
	if !prefork.IsWorker() {
		go func() {
			for pm.NumActiveWorkers() == 0 {
				time.Sleep(time.Millisecond)
			}
			testprog.Print("active %d", pm.NumActiveWorkers())
		}()
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		w.SetStatus('N')
		<-w.Context().Done()
		return nil
	})
}

// A worker publishes its status even if its limits leave no room for the shared
// memory.
func TestStatusUnderLimits(t *testing.T) {
	p := preforktest.New(t, "narrow")
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		preforktest.Skipf(t, "the race detector cannot do without address space")
	}
	p.Start()
	p.Expect(`^active 1$`)
	p.Signal(term)
	p.Wait()
}

func init() { preforktest.Register("greatest", greatest) }

// greatest runs a worker with the greatest values that a Config may have.
func greatest() {
	cfg := prefork.Config{
		Name: strings.Repeat("ü", 512), MaxWorkers: 1, StopTimeout: math.MaxInt64, OrphanTimeout: math.MaxInt64, UpgradeTimeout: math.MaxInt64,
		Readiness: prefork.Readiness{Timeout: math.MaxInt64}, Stuck: prefork.Stuck{Timeout: math.MaxInt64},
		Recycle:   prefork.Recycle{MaxRequests: math.MaxInt, MaxLifetime: math.MaxInt64, MaxMemory: math.MaxInt64},
		Resources: prefork.Resources{GOMAXPROCS: 100, GOMEMLIMIT: math.MaxInt64},
	}
	if os.Getuid() == 0 {
		cfg.Resources.User, cfg.Resources.Group = "12345", "100000"
		for g := range 5000 { // the marker is in a file
			cfg.Resources.Groups = append(cfg.Resources.Groups, strconv.Itoa(200_000+g))
		}
	}
	testprog.NewManager(cfg).Run(context.Background(), func(w *prefork.Worker) error {
		w.Served(math.MaxInt / 2)
		groups, err := os.Getgroups()
		ctx := w.Context() // before the test ends the manager
		testprog.Print("worker %d: uid %d, %d groups, %v, GOMAXPROCS %d", os.Getpid(), os.Getuid(), len(groups), err, runtime.GOMAXPROCS(0))
		<-ctx.Done()
		testprog.Print("stopped")
		select {}
	})
}

// A worker can read and carry out the greatest values that New accepts.
func TestGreatestValues(t *testing.T) {
	p := preforktest.Start(t, "greatest")
	uid, groups := os.Getuid(), ".*"
	if uid == 0 {
		uid, groups = 12345, "5000"
	}
	worker := p.Expect(fmt.Sprintf(`^worker (\d+): uid %d, %s groups, <nil>, GOMAXPROCS 100$`, uid, groups))[1]
	p.Kill()
	p.Expect(`^stopped$`)
	pid, _ := strconv.Atoi(worker)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // it lives on for OrphanTimeout
		t.Error(err)
	}
	p.Wait()
	p.WaitGone()
}

func init() { preforktest.Register("shelled", shelled) }

// shelled runs a shell as the Command, with resources that only a first step can
// set if there are arguments.
func shelled() {
	const script = `exec 2>&1
echo "umask $(umask) core $(ulimit -c) files $(ulimit -n) nice $(nice) $(grep NoNewPrivs /proc/self/status | tr -d '\t') $(grep Cpus_allowed_list /proc/self/status | tr -d '\t')"
echo "listen '$LISTEN_PID$LISTEN_FDS' step '$PREFORK_COMMAND' plan $(test -e /proc/self/fd/3 && echo open) up"
exec sleep 60`
	cfg := prefork.Config{MaxWorkers: 1, Command: []string{"/bin/sh", "-c", script}}
	if len(os.Args) > 1 {
		cfg.Resources = prefork.Resources{
			Umask: os.Args[1], Nice: 7, NoNewPrivs: true, CPUsPerWorker: 1,
			Rlimits: []prefork.Rlimit{{Resource: prefork.RlimitCore}, {Resource: prefork.RlimitNofile, Soft: 64}},
		}
	}
	if err := testprog.NewManager(cfg).Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
}

// A Command has the Resources that a process can only set itself.
func TestResourcesOfACommand(t *testing.T) {
	p := preforktest.New(t, "shelled", "027").Start()
	p.Expect(`^umask 0027 core 0 files 64 nice 7 NoNewPrivs:1 Cpus_allowed_list:\d+$`)
	p.Expect(`^listen '' step '' plan  up$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	p.WaitGone()
}
