package main

import (
	"fmt"
	"log"
	"strconv"
	"time"

	"github.com/mikespook/gearman-go/client"
)

// responseTimeout limits how long gearmand may take to accept a job.
const responseTimeout = 30 * time.Second

// answerTimeout limits the time between two answers.
const answerTimeout = time.Minute

// submit submits foreground jobs, which have an answer: 0, 1, 2 … It submits
// each once. If a worker is lost, gearmand assigns its job to another.
func submit() error {
	c, err := client.New("tcp", cli.Server)
	if err != nil {
		return err
	}
	c.ErrorHandler = func(err error) { log.Fatal(err) }
	c.ResponseTimeout = responseTimeout
	n := cli.Submit.N
	names := make(chan string, n)
	began := time.Now()
	go submitAll(c, n, names)
	byName, err := collect(n, names)
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	fmt.Printf("all answered in %.2f s: %.0f jobs per second\n", seconds, float64(n)/seconds)
	for name, k := range byName {
		fmt.Printf("%d by configuration %s\n", k, name)
	}
	return nil
}

// submitAll submits n jobs. It sends the name of the configuration in each
// answer to names.
func submitAll(c *client.Client, n int, names chan<- string) {
	for i := range n {
		_, err := c.Do(function, []byte(strconv.Itoa(i)), client.JobNormal, func(r *client.Response) {
			names <- configurationOf(r, i)
		})
		if err != nil {
			log.Fatal(err)
		}
	}
}

// configurationOf returns the name of the configuration that has answered job
// i.
func configurationOf(r *client.Response, i int) string {
	data, err := r.Result()
	if err != nil {
		return "no configuration: failed"
	}
	var number int
	var sum uint32
	var name string
	if _, err := fmt.Sscanf(string(data), "%d %x %s", &number, &sum, &name); err != nil || number != i {
		return "no configuration: wrong answer"
	}
	return name
}

// collect waits for n answers and counts them by configuration.
func collect(n int, names <-chan string) (byName map[string]int, err error) {
	byName = make(map[string]int)
	for answered := 1; answered <= n; answered++ {
		select {
		case name := <-names:
			byName[name]++
		case <-time.After(answerTimeout):
			return nil, fmt.Errorf("no answer for %v: %d of %d jobs are unanswered", answerTimeout, n-answered+1, n)
		}
		if answered%max(1, n/20) == 0 {
			fmt.Printf("%d of %d answered\n", answered, n)
		}
	}
	return byName, nil
}
