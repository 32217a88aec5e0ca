package ops_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Workers run the same program, so each package that these link delays the
// start of each worker.
func TestDependencies(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH")
	}
	const module = "github.com/prefork-go/prefork/ops"
	allowed := map[string][]string{ // of other modules
		"":           {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener", "github.com/coreos/go-systemd/v22/daemon"},
		"/control":   {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		"/record":    {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		"/systemd":   {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener", "github.com/coreos/go-systemd/v22/daemon"},
		"/capture":   {"golang.org/x/sys/"},
		"/client":    {"golang.org/x/sys/"},
		"/supervise": {"golang.org/x/sys/"},
	}
	for path, modules := range allowed {
		out, err := exec.Command("go", "list", "-deps", module+path).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", module+path, err)
		}
		for _, dep := range strings.Fields(string(out)) {
			first, _, _ := strings.Cut(dep, "/")
			switch {
			case dep == "net/http" || strings.HasPrefix(dep, "net/http/") || dep == "os/user" || isCrypto(dep) || strings.Contains(dep, "compress/"):
				t.Errorf("%s links %s, which takes time when a process starts", module+path, dep)
			case path == "" && strings.HasPrefix(dep, module+"/capture"):
				t.Errorf("%s links %s: only programs that capture output need it", module+path, dep)
			case (path == "/client" || path == "/capture" || path == "/supervise") && dep == "github.com/prefork-go/prefork":
				t.Errorf("%s links the library", module+path)
			case !strings.Contains(first, ".") || strings.HasPrefix(dep, "github.com/prefork-go/prefork"):
			case !hasPrefix(dep, modules):
				t.Errorf("%s links %s", module+path, dep)
			}
		}
	}
}

func isCrypto(dep string) bool {
	return dep == "crypto" || strings.HasPrefix(dep, "crypto/")
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
