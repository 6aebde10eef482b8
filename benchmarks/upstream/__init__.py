"""The tests of Qiskit and of its packages, with their own jobs and with ours."""
