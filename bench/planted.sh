#!/usr/bin/env bash
# A planted effect: is a scrambled prompt style, or a wrong prior, found to be worse? bench/planted.sh [FOLDER] [--field=value]
# Clean synthetic corpora of 24 AU sequences and 420 clips, a model of seconds, 2 x 2 settings with 3 seeds each. The
# prior is fixed and fused strongly and prompts have no contexts, so that training cannot mend what is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-runs/planted}
shift || true
for corpus in bp4d dfew; do
  python jobs/synthesize.py "$corpus" "$folder/corpora/$corpus" --spec bench/planted_corpora.json --processes 2
done
exec python jobs/tune.py --recipe quickstart --name planted --storage="$folder" --method grid --repeats 3 \
  --vary model.text.scramble=null,3 --vary model.mapping.prior=emfacs,scrambled \
  --data.corpora.bp4d.root="$folder/corpora/bp4d" --data.corpora.bp4d.synthetic=null \
  --data.corpora.dfew.root="$folder/corpora/dfew" --data.corpora.dfew.synthetic=null \
  --data.corpora.bp4d.validation_parts='["P2"]' --data.corpora.dfew.validation_parts='["2"]' \
  --model.text.style=facs --model.text.contexts=0 \
  --model.mapping.seed=1 --model.mapping.learn=none --model.mapping.gate=0.9 \
  --model.frames=2 --model.width=64 --model.backbone.image_size=32 --model.backbone.options.dims='[16,32,64,96]' \
  --train.optim.ema=0.95 --steps=240 --validate_every=80 --checkpoint.every=240 --scale.threads_per_worker=1 "$@"
