//go:build linux

package prefork_test

import (
	"context"
	"errors"
	"log"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { programs["confined"] = confined }

// confined runs workers as another user, in a directory that is their root.
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
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		groups, _ := os.Getgroups()
		dir, _ := os.Getwd()
		_, err := os.Stat("/proc")
		say("worker %d: uid %d gid %d groups %v dir %s proc %v maxprocs %s listens %v", w.Slot(), os.Getuid(), os.Getegid(), groups, dir,
			err == nil, os.Getenv("GOMAXPROCS"), ln.Addr() != nil)
		<-w.Context().Done()
		return nil
	})
}

// As another user, in a chroot, with a binary that only root may run: the worker serves, and is replaced when it dies.
func TestResources(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can have workers of another user")
	}
	root := preforktest.TempDir(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	p := preforktest.Start(t, "confined", "nobody", "12345", root)
	want := `: uid 65534 gid 12345 groups \[\] dir / proc false maxprocs 1 listens true$`
	p.ExpectN(2, `^worker \d`+want)
	children, err := preforktest.Children(p.PID())
	if err != nil || len(children) != 2 {
		t.Fatal(children, err)
	}
	syscall.Kill(children[0].PID, syscall.SIGKILL)
	p.Expect(`^worker \d` + want)
	p.Signal(term)
	p.Wait()
}

// What the manager can know to be wrong is an error of New, and no worker ever runs as root instead.
func TestResourcesRefused(t *testing.T) {
	for field, r := range map[string]prefork.Resources{
		"User":       {User: "no-such-user"},
		"Chroot":     {Chroot: "/no/such/directory"},
		"Rlimits":    {Rlimits: []prefork.Rlimit{{Resource: "patience"}}},
		"GOMAXPROCS": {GOMAXPROCS: -1},
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
	// The directory goes after New has looked: the worker cannot have its root, and ends.
	p := preforktest.Start(t, "vanishing", preforktest.TempDir(t)+"/root")
	p.Expect(`cannot have the resources that it should: .*hroot`)
	p.Signal(term)
	p.Wait()
}

func init() { programs["vanishing"] = vanishing }

func vanishing() {
	if !prefork.IsWorker() {
		os.Mkdir(os.Args[1], 0o755)
	}
	pm := must(prefork.Config{MaxWorkers: 1, Resources: prefork.Resources{Chroot: os.Args[1]}, BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
		os.Remove(os.Args[1])
	}})
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		say("it works")
		<-w.Context().Done()
		return nil
	})
}
