# Completes the options of the commands and their values in bash. The environment must be active:
#   source .venv/bin/activate && source tools/completion.bash

_complete_command() {
    local name=${1##*/}
    "_tyro_${name//-/_}" "$@"
    # Bash completes the name of a file only if there is no other completion, not even an empty one.
    [[ ${COMPREPLY[*]} ]] || COMPREPLY=()
}

for command in train export-onnx evaluate verify-model sample export-site; do
    # Bash would read the second line of a description as another completion, so descriptions are joined to one line.
    source <("$command" --tyro-print-completion bash | sed '/^COMPLETION_SPEC = /s/\\n/ /g')
    complete -o default -o filenames -F _complete_command "$command"
done
unset command
