package process_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("jailed", jailed) }

// jailed runs a Command with a root directory of its own, as another user.
func jailed() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, Command: os.Args[4:], ListenFDs: os.Args[1] == "fds", ErrRespawnInterval: 20 * time.Millisecond,
		Resources: prefork.Resources{User: os.Args[2], Chroot: os.Args[3]},
	})
	if _, err := pm.Listen("tcp", "127.0.0.1:0"); err != nil {
		testprog.Print("%v", err)
	}
	pm.Run(context.Background(), nil)
}

// jail returns a root directory with a shell and the given script, of which
// nothing exists outside.
func jail(t *testing.T, script string) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		preforktest.Skipf(t, "there is no sh")
	}
	libraries, _ := exec.Command("ldd", sh).Output() // none if it is linked statically
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		copyFile(t, path, filepath.Join(root, path), 0o755)
	}
	copyFile(t, sh, filepath.Join(root, "only-inside/real"), 0o755)
	if err := os.Symlink("/only-inside/real", filepath.Join(root, "only-inside/sh")); err != nil {
		t.Fatal(err)
	}
	text := "#!/only-inside/sh\n" + script
	if err := os.WriteFile(filepath.Join(root, "only-inside/serve"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// A Command is found in its own root directory, starts there, as the other user,
// and gets its sockets in both ways. That user may not run the manager's program.
// The kernel still kills it when the manager dies.
func TestCommandInChroot(t *testing.T) {
	if os.Getuid() != 0 {
		preforktest.Skipf(t, "only root can have workers of another user")
	}
	root := jail(t, `test . -ef / && at=root
test "$LISTEN_PID" = $$ && own=own
echo "at $at, fds $LISTEN_FDS pid $own, port ${SERVER_STARTER_PORT##*=}, PWD $PWD"
>/only-inside/forbidden || echo "not root"
while :; do read x </fifo; done
`)
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ way, command, want string }{
		{"plain", "serve", `^at root, fds  pid , port 3, PWD /$`},
		{"plain", "/only-inside/serve", `^at root, fds  pid , port 3, PWD /$`},
		{"plain", "only-inside/serve", `^at root, fds  pid , port 3, PWD /$`},
		{"fds", "serve", `^at root, fds 1 pid own, port 3, PWD /$`},
	} {
		t.Run(test.way+" "+test.command, func(t *testing.T) {
			p := preforktest.New(t, "jailed", test.way, "nobody", root, test.command)
			program := t.TempDir() + "/program"
			copyFile(t, p.Cmd.Path, program, 0o700)
			p.Cmd.Path = program
			p.Cmd.Env = append(p.Cmd.Env, "PATH=/nowhere:/only-inside")
			p.Start()
			p.Expect(test.want)
			p.Expect(`^not root$`)
			p.Kill()
			p.Wait()
			p.WaitGone()
		})
	}
	t.Run("missing", func(t *testing.T) {
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []string{"plain", "fds"} {
			p := preforktest.Start(t, "jailed", way, "nobody", root, sh)
			p.Expect(fmt.Sprintf(`spawn failed .*%s.* not found in .*Chroot`, sh))
			p.Signal(term)
			p.Wait()
			if strings.Contains(strings.Join(p.Lines(), "\n"), "cannot run the command") {
				t.Error("it was started")
			}
		}
	})
}
