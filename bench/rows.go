//go:build linux

package main

import "io"

// rows are the lines of the table, in its order. Those that need no peer come first where the order does not matter.
var rows = []row{
	{"respawn", "kill → replacement in its main, no standby", "the same binary spawned by hand", "≤ 1.15 ×", respawn},
}

func list(w io.Writer) {
	t := &table{head: []string{"row", "what", "beside", "goal"}, left: []bool{true, true, true, true}}
	for _, r := range rows {
		t.add(r.name, r.what, r.beside, r.goal)
	}
	t.write(w, "")
}
