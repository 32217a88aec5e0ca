// Bare is the least that a Go program is: package bench starts it to see what the system's own part of a start costs.
package main

import "os"

func main() { os.Stdout.WriteString("main\n") }
