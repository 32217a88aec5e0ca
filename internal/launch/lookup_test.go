//go:build unix

package launch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// A Command with a root directory is looked up there, as a process there would
// see it, and its file's faults are found there.
func TestLookPathInRoot(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{"bin/real": "", "bin/script": "#!/bin/link\n", "bin/lost": "#!/no/such/sh\n", "bin/data": "", "lib/x": ""} {
		os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(root, "bin/data"), 0o644)
	for link, target := range map[string]string{"bin/link": "/bin/real", "usr": "bin", "up": "../../../bin/real", "loop": "/loop"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	current := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(root, current); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/lib:/bin:usr")
	for _, test := range []struct {
		name, want string
		err        error
	}{
		{"real", "/bin/real", nil},
		{"link", "/bin/link", nil},
		{"/usr/real", "/usr/real", nil},
		{"./bin/real", "/bin/real", nil},
		{"../../bin/real", "/bin/real", nil},
		{"/up", "/up", nil},
		{"data", "", os.ErrPermission},
		{"/bin", "", syscall.EISDIR},
		{"bin", "", exec.ErrNotFound},
		{"/loop", "", exec.ErrNotFound},
		{"sh", "", exec.ErrNotFound},
		{"/bin/sh", "", exec.ErrNotFound},
	} {
		for _, root := range []string{root, current} {
			if got, err := LookPath(root, "", test.name); got != test.want || !errors.Is(err, test.err) {
				t.Errorf("%s in %s: %q, %v; want %q, %v", test.name, root, got, err, test.want, test.err)
			}
		}
	}
	if _, err := LookPath(root, "", "sh"); err == nil || !strings.Contains(err.Error(), "not found in "+root) {
		t.Errorf("%v", err)
	}
	plan := Plan{Root: root, Args: []string{"lost"}}
	if err := plan.NotStarted(syscall.ENOENT, ""); err == nil || !strings.Contains(err.Error(), "fork/exec /bin/lost: no such file or directory: its interpreter /no/such/sh") {
		t.Errorf("%v", err)
	}
}

// The plan of a Command with ListenFDs travels beyond its sockets, in a file: it
// may be longer than a variable may be.
func TestCommandInRoot(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "server"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	socket, long := open(t), strings.Repeat("x", 1<<20)
	plan := Plan{Exe: "/manager", Args: []string{"/server"}, Root: root, Ports: []Port{{Name: "80", FD: raw(t, socket)}}}
	spec, release, err := Command(plan)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if spec.Dir != "/" || spec.Path != "/server" {
		t.Errorf("%s starts in %q", spec.Path, spec.Dir)
	}
	wantVariables(t, spec, map[string]string{"PWD": "/"})

	plan.Step, plan.ListenFDs, plan.Confine = true, true, long
	if spec, release, err = Command(plan); err != nil {
		t.Fatal(err)
	}
	defer release()
	if spec.Dir != "" || spec.Path != "/manager" || len(spec.Files) != 6 || spec.Control != 4 {
		t.Errorf("%s starts in %q with descriptors %v", spec.Path, spec.Dir, spec.Files)
	}
	step := marker.Command{Manager: os.Getpid(), Plan: 5, Listen: true, Report: 4, Dir: "/", Path: "/server"}
	wantVariables(t, spec, map[string]string{"PWD": "/", "LISTEN_FDS": "1", marker.CommandEnv: step.String()})
	if text, err := fd.ReadBlob(int(spec.Files[5])); string(text) != long || err != nil {
		t.Errorf("plan of %d bytes, %v", len(text), err)
	}
	// Without ListenFDs, and in a directory below the root.
	plan.ListenFDs, plan.Dir = false, "sub"
	inDir, release2, err := Command(plan)
	if err != nil {
		t.Fatal(err)
	}
	defer release2()
	step.Listen, step.Dir = false, "/sub"
	if inDir.Dir != "" {
		t.Errorf("starts in %q", inDir.Dir)
	}
	wantVariables(t, inDir, map[string]string{"PWD": "/sub", marker.CommandEnv: step.String()})
	if _, ok := variable(inDir, "LISTEN_FDS"); ok {
		t.Error("LISTEN_FDS is set")
	}
	for _, attr := range []*syscall.SysProcAttr{{Chroot: "/"}, {Credential: &syscall.Credential{}}} {
		plan.Attr = attr
		if _, _, err := Command(plan); err == nil || !strings.Contains(err.Error(), "use Resources.") {
			t.Errorf("%+v: %v", attr, err)
		}
	}
}
