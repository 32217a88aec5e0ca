// Bare is the smallest Go program. Package bench measures with it the part of a
// start that is not due to the program.
package main

import "os"

func main() { os.Stdout.WriteString("main\n") }
