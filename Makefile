# The commands of the project; each is a script in tools/ that says what it does.
.PHONY: setup demo test bench tables format tidy clean

setup:  ; @tools/setup.sh test
demo:   ; @tools/demo.sh
test:   ; @tools/test.sh
bench:  ; @tools/bench.sh
tables: ; @build/venv/bin/python tools/update_tables.py
format: ; @tools/format.sh
tidy:   ; @build/venv/bin/python tools/tidy.py
clean:  ; rm -rf build
