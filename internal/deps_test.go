// Package internal holds what only this module uses.
package internal

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/prefork-go/prefork"

// deps are all packages that a package of this module links, on the system of this test.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

// Dependencies run one way: preforkhttp → root → internal. What a worker links decides how fast it starts, so the root
// links none of those packages that cost time in their init.
func TestDependencies(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH: dependencies cannot be listed")
	}
	for pkg, allowed := range map[string][]string{
		module: {module + "/internal/inherit", module + "/internal/pool", module + "/internal/proc", module + "/internal/reaper", module + "/internal/reuseport", module + "/internal/scoreboard", module + "/internal/resources",
			module + "/internal/wire",
			"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		module + "/preforkhttp":         {module, module + "/internal/", "golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		module + "/preforktest":         {"golang.org/x/sys/"},
		module + "/internal/pool":       {},
		module + "/internal/wire":       {},
		module + "/internal/reaper":     {"golang.org/x/sys/"},
		module + "/internal/resources":  {"golang.org/x/sys/"},
		module + "/internal/scoreboard": {"golang.org/x/sys/"},
		module + "/internal/reuseport":  {"golang.org/x/sys/"},
	} {
		for _, dep := range deps(t, pkg) {
			foreign := strings.Contains(strings.SplitN(dep, "/", 2)[0], ".")
			if dep == pkg || !foreign {
				continue
			}
			if !slices.ContainsFunc(allowed, func(a string) bool { return dep == a || strings.HasSuffix(a, "/") && strings.HasPrefix(dep, a) }) {
				t.Errorf("%s links %s", pkg, dep)
			}
		}
	}
	for _, dep := range deps(t, module) {
		if dep == "net/http" || dep == "os/user" || dep == "testing" || strings.HasPrefix(dep, "crypto/") {
			t.Errorf("the root links %s, which makes every worker start later", dep)
		}
	}
	for _, dep := range deps(t, module+"/internal/pool") {
		if dep == "os" || dep == "net" || dep == "os/signal" {
			t.Errorf("internal/pool links %s; the policy is pure", dep)
		}
	}
}
