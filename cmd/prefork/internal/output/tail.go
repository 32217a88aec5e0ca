package output

import (
	"unicode/utf8"

	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/ops/client"
)

// Tail returns the function of control.Config that answers with the last lines of a
// Capture.
func Tail(c *capture.Capture) func(pool string, slot, lines int) []client.Line {
	return func(pool string, slot, lines int) []client.Line {
		last := c.TailOf(pool, slot, lines)
		all := make([]client.Line, len(last))
		for i, l := range last {
			all[i] = client.Line{Time: l.Time.UTC(), Slot: l.Slot, PID: l.PID, Stream: l.Stream.String(), Line: l.Text, Continued: l.Continued}
			if !utf8.ValidString(l.Text) {
				all[i].Line, all[i].Raw = "", []byte(l.Text)
			}
		}
		return all
	}
}
