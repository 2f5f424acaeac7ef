#!/bin/bash
# Writes tests/data/workflow/*.snakemakeN.log: what a real Snakemake prints for the Snakefile beside them.
# Usage: record_snakemake.sh BIN N. BIN is the bin folder of an environment with Snakemake N and, for 8 and 9, its
# executor plugins slurm and cluster-generic. Slurm itself is played by commands that only report.
set -u
bin=$1 version=$2
data=$(cd "$(dirname "$0")/../data/workflow" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/slurm"
export PATH=$scratch/slurm:$bin:$PATH PYTHONUNBUFFERED=1 SLURM=$scratch/slurm

play() { printf '#!/bin/bash\n%s\n' "$2" >"$scratch/slurm/$1" && chmod +x "$scratch/slurm/$1"; }
play sbatch 'n=$(($(cat $SLURM/n 2>/dev/null || echo 4710) + 1)); echo $n >$SLURM/n; echo "$n|$STATE" >>$SLURM/jobs; echo $n'
play sacct 'case "$*" in *Reason*) ;; *nodelist*) echo queue1-dy-c5-1 ;; *) cat $SLURM/jobs ;; esac'
play sacctmgr 'echo lab'
play sinfo 'echo "queue1*"'
play scontrol 'echo "MinJobAge = 300 sec"'
for name in squeue scancel; do play $name :; done

# record NAME ARGUMENT...: each in a fresh folder, but "before" may have been there first.
record() {
    folder=$scratch/ws1
    rm -rf "$folder" "$scratch/slurm/jobs" && mkdir -p "$folder/work" && cp "$data/Snakefile" "$folder" && cd "$folder"
    before
    snakemake "${@:2}" >"$scratch/log" 2>&1
    sed -e "s#$folder#/fsx/analysis/ws1#g; s#$bin#/opt/snakemake/bin#g; s#${bin%/bin}#/opt/snakemake#g" \
        -e "s#$HOME/#/home/daylily/#g; s/[Hh]ost: $(hostname)/host: ip-10-0-0-5/" "$scratch/log" \
        >"$data/$1.snakemake$version.log"
    cd "$scratch"
}

before() { :; }
record sort -c 2 -k sorted
record show-failed-logs -c 2 -k --show-failed-logs sorted
record keep-going -c 2 -k -p aligned
record quiet -c 2 quiet
record killed -c 2 killed
record run-block -c 2 python
record no-output -c 2 --latency-wait 1 no_output
record no-input -c 2 no_input
record ends-well -c 2 ends_well

before() { touch work/{HG002,NA12878,gatk-1}.L001.trim; }
case $version in
7) record cluster --cluster 'bash' -j 2 -k sorted ;;
*)
    record cluster --executor cluster-generic --cluster-generic-submit-cmd bash -j 2 -k sorted
    slurm=(--executor slurm --default-resources slurm_account=lab slurm_partition=queue1 runtime=60)
    slurm+=(-k -j 3 --slurm-init-seconds-before-status-checks 1)
    for state in TIMEOUT OUT_OF_MEMORY NODE_FAIL CANCELLED FAILED; do
        STATE=$state record "slurm-${state,,}" "${slurm[@]}" sorted
    done
    ;;
esac

before() {
    setsid snakemake -c 1 slow >/dev/null 2>&1 &
    while [ ! -e work/slow ]; do sleep 0.2; done
    kill -9 -- "-$!"
    wait "$!"
} 2>/dev/null
record locked -c 2 --rerun-incomplete slow
record incomplete -c 2 --nolock slow
