package marker

import (
	"fmt"
	"strings"
)

// Command is the value of CommandEnv: the first step of a Command, in which the
// program of the manager applies resources, and puts its own pid into LISTEN_PID.
// Only the new process itself can do these.
type Command struct {
	Manager int
	Plan    int    // descriptor of the file with a plan of package resources; 0 for none
	Listen  bool   // LISTEN_PID is set
	Report  int    // descriptor of the socket for a failure; 0 for none
	Keep    bool   // the program gets that socket, too
	Dir     string // below the root directory that the plan sets; "" for no change
	Path    string // the program to execute, as seen from its root directory
}

func (c Command) String() string {
	return fmt.Sprintf("%d:%d:%d:%d:%d:%d:%s%s", c.Manager, c.Plan, bit(c.Listen), c.Report, bit(c.Keep), len(c.Dir), c.Dir, c.Path)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func parseCommand(value string) (c Command, ok bool) {
	parts := strings.SplitN(value, ":", 7)
	if len(parts) < 7 {
		return c, false
	}
	paths := parts[6]
	var numbers [6]int
	for i, most := range []int64{1<<31 - 1, maxFD, 1, maxFD, 1, int64(len(paths))} {
		n, err := parseInt(parts[i], 0, most)
		if err != nil {
			return c, false
		}
		numbers[i] = int(n)
	}
	n := numbers[5]
	return Command{numbers[0], numbers[1], numbers[2] == 1, numbers[3], numbers[4] == 1, paths[:n], paths[n:]}, numbers[0] > 0
}
