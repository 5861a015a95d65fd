// kstatus reads Kubernetes objects, one JSON document a line, and writes for each a line of JSON: what the library judges by which Flux
// judges them (and, in another copy, Helm).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(bufio.NewReader(in))
	encoder := json.NewEncoder(out)
	for {
		var line json.RawMessage
		if err := decoder.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("failed to read a line: %w", err)
		}
		// Not by encoding/json, which would make a generation a float.
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(line); err != nil {
			return fmt.Errorf("failed to read an object: %w", err)
		}
		result, err := status.Compute(&object)
		if err != nil {
			return fmt.Errorf("failed to judge an object: %w", err)
		}
		if err := encoder.Encode(verdict{Status: string(result.Status), Message: result.Message}); err != nil {
			return fmt.Errorf("failed to write a verdict: %w", err)
		}
	}
}
